"""Pixels and their neighbors, read where a bilinear interpolation needs them."""

import math

import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap


@custom_vmap
def squares(images: Array, index: Array) -> tuple[Array, ...]:
    """Read pixels `index` [..., h, w] of the raveled images [..., H, W], and their neighbors.

    These are to the right, below, and below to the right. All four are read at one index from
    arrays that begin where they lie: a CPU computes and checks it once. It is one into all images,
    since pairs (image, pixel) would pass through memory.

    `index` must be of pixels that have all three neighbors; this is not checked.
    """
    *leading, height, width = images.shape
    first = height * width * jnp.arange(math.prod(leading)).reshape(*leading, 1, 1)
    last = images.size - width - 1

    def read(offset: int) -> Array:
        # without checks it is several times as fast
        at = images.ravel()[offset : offset + last].at[first + index]
        return at.get(mode="promise_in_bounds", wrap_negative_indices=False)

    return tuple(read(offset) for offset in (0, 1, width, width + 1))


@squares.def_vmap
def _squares_of_batch(size: int, mapped: list[bool], *arrays: Array):
    """Read from a batch, which is one more leading axis."""
    images, index = (
        array if is_mapped else jnp.broadcast_to(array, (size, *array.shape))
        for array, is_mapped in zip(arrays, mapped, strict=True)
    )
    return squares(images, index), (True,) * 4
