"""Multiplications of the networks of Table 10, counted from the shapes of their layers.

A network is a list of multiply-accumulates for one slice, one figure per layer, in order.
"""

from collections.abc import Sequence
from itertools import pairwise

from cradl_jax.models.sizes import levels


def encoder(size: int, features: int, outputs: int) -> list[int]:
    """Count the multiply-accumulates of the DC-Encoder on slices of `size` x `size` pixels."""
    macs, channels = [], 1
    for level in range(levels(size)):
        size, produced = size // 2, features << level
        macs.append(size**2 * 16 * channels * produced)
        channels = produced
    return [*macs, size**2 * channels * outputs]


def decoder(size: int, features: int, latent: int) -> list[int]:
    """Count those of the DC-Decoder: the layers of the encoder in reverse order."""
    return encoder(size, features, latent)[::-1]


def unet(size: int, features: int) -> list[int]:
    """Count those of the U-Net on slices of `size` x `size` pixels."""
    there = encoder(size, features, 1)[:-1]
    back, depth = [], len(there)
    for level in reversed(range(depth)):  # skips double the channels, but where the ways meet
        before = features << (level + (level < depth - 1))
        produced = features << (level - 1) if level else 1
        back.append((size >> (level + 1)) ** 2 * 16 * before * produced)
    return [*there, *back]


def dense(widths: Sequence[int]) -> list[int]:
    """Count those of fully connected layers; `widths` starts with the width of the input."""
    return [a * b for a, b in pairwise(widths)]


def training(layers: Sequence[int]) -> int:
    """Return the FLOPs of forward and backward: each layer's product and its two gradients.

    The gradient of the first layer's input is not needed.
    """
    return 2 * (3 * sum(layers) - layers[0])


def input_gradient(layers: Sequence[int]) -> int:
    """Return the FLOPs of forward and of the gradient with respect to the input alone."""
    return 4 * sum(layers)
