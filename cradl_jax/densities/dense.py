"""A Gaussian at each position of a slice and each height of the brain.

It models a vector of features at every point of a grid over slices that stand alike, as PaDiM does
(Defard et al. 2021, arXiv:2011.08785), and as a function of height too: means and covariances are
fitted at knots of height, each slice counting for the two beside it, the more the nearer it is.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from cradl_jax.errors import InputError

HEIGHTS = 24  # at most
SLICES = 8  # for each knot and dimension, at least
RIDGE = 0.1  # added to the covariances' diagonal, in units of each feature's overall variance
EPSILON = 1e-6  # the same, in squared units of the features: background has no variance


class Dense(NamedTuple):
    """Gaussians of C features at K heights on a grid, as a pytree of arrays.

    Attributes:
        heights: knots within the brain, ascending, evenly spaced, [K].
        mean: [K, H, W, C].
        whitening: lower triangular W with W^T W = covariance^-1, [K, H, W, C, C].
    """

    heights: Array
    mean: Array
    whitening: Array


class Moments(NamedTuple):
    """Sums over slices: of weights [K], features [K, H, W, C] and their products [..., C, C]."""

    weight: Array
    first: Array
    second: Array


def knots(positions: np.ndarray, dimensions: int) -> np.ndarray:
    """Return the heights [K] at which to model slices at `positions` [N] with C `dimensions`.

    There are as many as leave each knot eight slices a dimension, from 2 to 24.
    """
    count = int(np.clip(len(positions) // (SLICES * dimensions), 2, HEIGHTS))
    return np.linspace(positions.min(), positions.max(), count, dtype=np.float32)


def fit(heights: np.ndarray, batches: Iterable[tuple[ArrayLike, ArrayLike]]) -> Dense:
    """Fit the Gaussians in one pass over features [N, H, W, C] and positions [N] of slices.

    The slices may come in any order; it is fastest by height.

    Raises:
        InputError: no slice lies beside one of the knots.
    """
    moments = None
    for features, positions in batches:
        features = jnp.asarray(features)
        if moments is None:
            moments = _nothing(len(heights), features.shape[1:])
        moments = _add(moments, jnp.asarray(heights), features, jnp.asarray(positions))
    if moments is None or not bool(jnp.all(moments.weight > 0)):
        raise InputError(
            "training slices: expected some with brain near every height of the brain, found a gap "
            f"between two of {len(heights)} heights; train on more scans"
        )
    return _gaussians(moments, jnp.asarray(heights))


@jax.jit
def distance(dense: Dense, features: Array, positions: Array) -> Array:
    """Return Mahalanobis distances of features [N, H, W, C] of slices at `positions` [N].

    Between two knots their squares are interpolated; beyond the last one it counts alone.

    Returns:
        [N, H, W], not negative; a slice's does not depend on the others.
    """
    lower, share = _between(dense.heights, positions)

    def of_slice(features: Array, lower: Array, share: Array) -> Array:
        def squared(knot: Array) -> Array:
            centered = features - dense.mean[knot]
            white = jnp.einsum(
                "hwij,hwj->hwi", dense.whitening[knot], centered, precision=lax.Precision.HIGHEST
            )
            return jnp.square(white).sum(-1)

        return jnp.sqrt((1 - share) * squared(lower) + share * squared(lower + 1))

    return jax.vmap(of_slice)(features, lower, share)


def patches(images: Array, side: int) -> Array:
    """Return the `side` x `side` pixels of each patch of images, [N, H/side, W/side, side^2].

    `images` [N, H, W] are cut into patches that do not overlap.
    """
    n, height, width = images.shape
    split = images.reshape(n, height // side, side, width // side, side)
    return split.swapaxes(2, 3).reshape(n, height // side, width // side, side**2)


def _between(heights: Array, positions: Array) -> tuple[Array, Array]:
    """Return the knot below each position, and the share in [0, 1] of the one above it."""
    place = jnp.interp(positions, heights, jnp.arange(len(heights), dtype=jnp.float32))
    lower = jnp.clip(place.astype(jnp.int32), 0, len(heights) - 2)
    return lower, place - lower


def _nothing(count: int, shape: tuple[int, ...]) -> Moments:
    of_slice = (count, *shape)
    return Moments(jnp.zeros(count), jnp.zeros(of_slice), jnp.zeros((*of_slice, shape[-1])))


@jax.jit
def _add(moments: Moments, heights: Array, features: Array, positions: Array) -> Moments:
    """Add slices to the sums; a knot that none of them lies beside costs nothing."""
    lower, share = _between(heights, positions)

    def at_knot(knot: Array) -> Moments:
        weight = jnp.where(lower == knot, 1 - share, 0) + jnp.where(lower + 1 == knot, share, 0)

        def sums() -> Moments:
            first = jnp.einsum("n,nhwi->hwi", weight, features, precision=lax.Precision.HIGHEST)
            second = jnp.einsum(
                "n,nhwi,nhwj->hwij", weight, features, features, precision=lax.Precision.HIGHEST
            )
            return Moments(weight.sum(), first, second)

        nothing = jax.tree.map(jnp.zeros_like, jax.tree.map(lambda x: x[0], moments))
        return lax.cond(weight.any(), sums, lambda: nothing)

    more = lax.map(at_knot, jnp.arange(len(heights)))
    return jax.tree.map(jnp.add, moments, more)


@jax.jit
def _gaussians(moments: Moments, heights: Array) -> Dense:
    weight = moments.weight[:, None, None, None]
    mean = moments.first / weight
    square = moments.second / weight[..., None]
    covariance = square - mean[..., :, None] * mean[..., None, :]
    everywhere = jnp.diagonal(square, axis1=-2, axis2=-1).mean((0, 1, 2))
    overall = jnp.maximum(everywhere - jnp.square(mean.mean((0, 1, 2))), 0)
    ridge = jnp.diag(RIDGE * overall + EPSILON)
    factor = jnp.linalg.cholesky(covariance + ridge)
    unit = jnp.broadcast_to(jnp.eye(factor.shape[-1]), factor.shape)
    return Dense(heights, mean, jax.scipy.linalg.solve_triangular(factor, unit, lower=True))
