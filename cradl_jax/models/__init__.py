"""Flax modules: the DCGAN-style encoder and what is trained on top of it."""
