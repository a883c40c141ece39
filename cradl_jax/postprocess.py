"""Post-processing of heatmaps (Section 4.5): zero outside the brain, 5x5 median, Gaussian.

The Gaussian comes last, as in the paper, so a map may end up slightly above zero just outside the
brain. Maps of distances at each position, which the paper does not have, are told in units of what
is usual in their scan and averaged over slices instead; those of the paper may be averaged too.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.ndimage import correlate1d

from cradl_jax.ops.filters import gaussian, median5x5

NEIGHBOURS = 3  # slices on either side, for maps beyond the paper


@jax.jit
def postprocess(heatmaps: Array, brains: Array) -> Array:
    """Post-process heatmaps [N, H, W] with boolean brains [N, H, W].

    The Gaussian has 7x7 taps and sigma 3.
    """
    return gaussian(median(heatmaps, brains), sigma=3.0, taps=7)


@jax.jit
def median(heatmaps: Array, brains: Array) -> Array:
    """Set heatmaps [N, H, W] to zero outside the brains [N, H, W], and take the 5x5 median."""
    return median5x5(jnp.where(brains, heatmaps, 0))


def relative(distances: np.ndarray) -> np.ndarray:
    """Divide maps of distances [N, H, W] of a scan's slices by their median where they are not 0.

    A scan that is unusual throughout, by its contrast, scanner or pose, does not stand out
    everywhere then. An anomaly of a tenth of the brain hardly moves the median, one of half of it
    becomes the unit.
    """
    inside = distances[distances > 0]
    return distances / np.median(inside) if len(inside) else distances


def over_neighbours(heatmaps: np.ndarray, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Average heatmaps [N, H, W] of a scan's slices, in their order, with those on either side.

    A slice `k` away counts `neighbours` + 1 - k times. Beyond the first and the last slice there is
    nothing to count. Without neighbours heatmaps stay as they are.
    """
    if not neighbours:
        return heatmaps
    away = np.abs(np.arange(-neighbours, neighbours + 1))
    counted = (neighbours + 1 - away).astype(np.float32)
    weights = correlate1d(np.ones(len(heatmaps), np.float32), counted, mode="constant")
    total = correlate1d(heatmaps, counted, axis=0, mode="constant")
    return total / weights[:, None, None]
