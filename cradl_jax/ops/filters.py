"""A Gaussian and a median of images, in forms that are fast on a CPU and an accelerator.

Both reflect the image at its border without repeating the outermost row or column (numpy's
"reflect", scipy's "mirror").
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Exchanges that sort five values (Knuth, The Art of Computer Programming 3, Section 5.3.4).
SORT_5 = ((0, 3), (1, 4), (0, 2), (1, 3), (0, 1), (2, 4), (1, 2), (3, 4), (2, 3))

IMAGES_AT_ONCE = 8  # their intermediate results stay in a CPU's cache


@partial(jax.jit, static_argnames=("sigma", "taps"))
def gaussian(images: Array, sigma: float, taps: int) -> Array:
    """Smooth images [N, H, W] by `taps` x `taps` (odd) normalized samples of a Gaussian.

    The filter is separable and linear, so each axis is one product with a banded matrix, which
    holds the reflecting border too. `sigma` in pixels.
    """
    rows, columns = (_smoothing_matrix(size, sigma, taps) for size in images.shape[-2:])
    return jnp.einsum("hi,nij,wj->nhw", rows, images, columns, precision=jax.lax.Precision.HIGHEST)


def smooth_maps(maps: Array, sigma: float, taps: int) -> Array:
    """Smooth maps [N, H, W, C] as `gaussian` does images, each channel by itself.

    A matrix for each product of a batch spares a CPU moving the maps to make one product of all.
    """
    n, height, width, channels = maps.shape
    rows, columns = (_smoothing_matrix(size, sigma, taps) for size in (height, width))
    multiply = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    along = multiply(
        jnp.broadcast_to(rows, (n, height, height)), maps.reshape(n, height, width * channels)
    ).reshape(n * height, width, channels)
    across = multiply(jnp.broadcast_to(columns, (n * height, width, width)), along)
    return across.reshape(maps.shape)


def _smoothing_matrix(size: int, sigma: float, taps: int) -> np.ndarray:
    """Return the matrix [size, size] that smooths a signal of that length, border included."""
    offsets = np.arange(taps) - taps // 2
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    padded = np.pad(np.eye(size), ((taps // 2, taps // 2), (0, 0)), mode="reflect")
    shifted = np.stack([padded[tap : tap + size] for tap in range(taps)])
    return np.tensordot(weights / weights.sum(), shifted, axes=1).astype(np.float32)


@jax.jit
def median5x5(images: Array) -> Array:
    """Return the median of the 5x5 window around each pixel of images [N, H, W].

    By a selection network of minima and maxima: it costs nothing to compile into one pass over
    the pixels, where sorting the 25 values of each window would move them all.
    """
    return jax.lax.map(_median5x5, images, batch_size=IMAGES_AT_ONCE)


def _median5x5(image: Array) -> Array:
    """Sort the windows' columns, then their rows, and choose among what may be the median.

    A window so sorted ascends along its columns and its rows. Entry (i, j), counted from 0, then
    has (i + 1)(j + 1) entries that are not above it and (5 - i)(5 - j) that are not below it,
    itself included: with more than 13 of either it need not be the median of 25. That rules out
    six entries on either side, so the median of the other 13 is the median of all.
    """
    height, width = image.shape
    padded = jnp.pad(image, 2, mode="reflect")
    columns = _sorted_5([padded[row : row + height] for row in range(5)])
    rows = [_sorted_5([rank[:, at : at + width] for at in range(5)]) for rank in columns]
    return _middle(
        [
            rows[i][j]
            for i in range(5)
            for j in range(5)
            if (i + 1) * (j + 1) <= 13 and (5 - i) * (5 - j) <= 13
        ]
    )


def _exchange(values: list[Array], low: int, high: int) -> None:
    """Put the smaller of two entries at `low`, the larger at `high`."""
    smaller = jnp.minimum(values[low], values[high])
    values[high] = jnp.maximum(values[low], values[high])
    values[low] = smaller


def _sorted_5(values: list[Array]) -> list[Array]:
    """Sort five arrays pixel by pixel."""
    values = list(values)
    for low, high in SORT_5:
        _exchange(values, low, high)
    return values


def _middle(values: list[Array]) -> Array:
    """Return the median of an odd number of arrays, pixel by pixel, by forgetful selection.

    Of any (n + 1) / 2 + 1 of n values neither the smallest nor the largest is the median of
    all: both are dropped and another value is taken in, until one is left.
    """
    kept, waiting = values[: len(values) // 2 + 2], values[len(values) // 2 + 2 :]
    while len(kept) > 1:
        last = len(kept) - 1
        for at in range(len(kept) // 2):
            _exchange(kept, at, last - at)
        for at in range(1, (len(kept) + 1) // 2):
            _exchange(kept, 0, at)
        for at in range(len(kept) // 2, last):
            _exchange(kept, at, last)
        kept, waiting = kept[1:-1] + waiting[:1], waiting[1:]
    return kept[0]
