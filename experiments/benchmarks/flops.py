"""Multiplications of the networks of Table 10, counted from the shapes of their layers.

Each function gives the multiply-accumulates of a layer for one slice, the first layer first.
"""

from collections.abc import Sequence
from itertools import pairwise

from cradl_jax.models.encoder import levels


def encoder(size: int, features: int, outputs: int) -> list[int]:
    """The DC-Encoder on slices of `size` pixels a side."""
    macs, channels = [], 1
    for level in range(levels(size)):
        size, produced = size // 2, features << level
        macs.append(size**2 * 16 * channels * produced)
        channels = produced
    return [*macs, size**2 * channels * outputs]


def decoder(size: int, features: int, latent: int) -> list[int]:
    """The DC-Decoder: the encoder's layers from the last to the first, the other way round."""
    return encoder(size, features, latent)[::-1]


def dense(widths: Sequence[int]) -> list[int]:
    """Fully connected layers of these widths, the input's first."""
    return [a * b for a, b in pairwise(widths)]


def training(layers: Sequence[int]) -> int:
    """FLOPs of forward and backward: each layer's product and its two gradients.

    The gradient of the first layer's input is not needed.
    """
    return 2 * (3 * sum(layers) - layers[0])


def input_gradient(layers: Sequence[int]) -> int:
    """FLOPs of forward and of the gradient with respect to the input, not the weights."""
    return 4 * sum(layers)
