"""Post-processing of heatmaps (Section 4.5): zero outside the brain, 5x5 median, Gaussian.

The Gaussian comes last, as in the paper, so a map may end up slightly above zero just outside the
brain.
"""

import jax
import jax.numpy as jnp
from jax import Array

from cradl_jax.ops.filters import gaussian, median5x5


@jax.jit
def postprocess(heatmaps: Array, brains: Array) -> Array:
    """Post-process heatmaps [N, H, W] with boolean brains [N, H, W].

    The Gaussian has 7x7 taps and sigma 3.
    """
    inside = jnp.where(brains, heatmaps, 0)
    return gaussian(median5x5(inside), sigma=3.0, taps=7)
