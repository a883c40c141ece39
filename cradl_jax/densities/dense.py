"""A Gaussian at each position of a slice and each height of the brain.

It models a vector of features at every point of a grid over slices that stand alike, as PaDiM does
(Defard et al. 2021, arXiv:2011.08785), and as a function of height too: means and covariances are
fitted at knots of height, each slice counting for the two beside it, the more the nearer it is.

A network's features are modelled by their principal components, so that their Gaussians take at
most 100 MB, and joined with those of single pixels, which see smaller things than the grid does.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from cradl_jax.errors import InputError

HEIGHTS = 24  # at most
SLICES = 8  # for each knot and dimension, at least
RIDGE = 0.1  # added to the covariances' diagonal, in units of the features' overall variance
EPSILON = 1e-6  # the same, in squared units of the features: background has no variance
GRID = 32  # positions along each side at most
COMPONENTS = 32  # of a network's features, at most
LEVELS = 2  # of an encoder, whose maps are modelled: deeper ones see too far to localize
PIXELS = 0.5  # weight of the pixels' distance beside that of the features


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


class Joint(NamedTuple):
    """Gaussians of a network's F features and of the pixels, as a pytree of arrays.

    Attributes:
        projection: of features onto C principal components, [F, C].
        features: of the components, on a grid.
        pixels: of single pixels.
    """

    projection: Array
    features: Dense
    pixels: Dense


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


def principal(batches: Iterable[ArrayLike]) -> Array:
    """Return the projection [F, C] of features [N, H, W, F] onto their first principal components.

    Each feature counts in units of its deviation. There are 32, or F if that is fewer.
    """
    count, first, second = 0, np.zeros(()), np.zeros(())
    for features in batches:
        rows = jnp.asarray(features).reshape(-1, np.shape(features)[-1])
        count += len(rows)
        first = first + np.asarray(rows.sum(0), np.float64)
        second = second + np.asarray(jnp.dot(rows.T, rows, precision=lax.Precision.HIGHEST))
    mean = first / count
    covariance = second / count - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(covariance.diagonal(), EPSILON))
    _, vectors = np.linalg.eigh(covariance / np.outer(deviation, deviation))
    return jnp.asarray(vectors[:, : -COMPONENTS - 1 : -1] / deviation[:, None], jnp.float32)


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

    def of_slice(one: tuple[Array, Array, Array]) -> Array:
        features, lower, share = one

        def squared(knot: Array) -> Array:
            centered = features - dense.mean[knot]
            white = jnp.einsum(
                "hwij,hwj->hwi", dense.whitening[knot], centered, precision=lax.Precision.HIGHEST
            )
            return jnp.square(white).sum(-1)

        return jnp.sqrt((1 - share) * squared(lower) + share * squared(lower + 1))

    return lax.map(of_slice, (features, *_between(dense.heights, positions)))


def joint_distance(joint: Joint, features: Array, images: Array, positions: Array) -> Array:
    """Return how far images [N, H, W] with features [N, G, G, F] are from normal, [N, H, W].

    It is the features' distance a component, upsampled, plus half the pixels': the sum of both
    localizes better than either (chosen on validation scans, see configs/RESULTS.md).
    """
    projected = jnp.einsum(
        "nhwf,fc->nhwc", features, joint.projection, precision=lax.Precision.HIGHEST
    )
    far = distance(joint.features, projected, positions) * joint.projection.shape[1] ** -0.5
    pixels = distance(joint.pixels, patches(images, 1), positions)
    return jax.image.resize(far, images.shape, "bilinear") + PIXELS * pixels


def patch_side(size: int) -> int:
    """Return the side of the patches of an image of `size` pixels that make a grid of at most 32.

    They have two pixels a side at least, and cover the image: their side divides its own.
    """
    return next(side for side in range(max(2, -(-size // GRID)), size + 1) if size % side == 0)


def patches(images: Array, side: int) -> Array:
    """Return the `side` x `side` pixels of each patch of images, [N, H/side, W/side, side^2].

    `images` [N, H, W] are cut into patches that do not overlap.
    """
    n, height, width = images.shape
    split = images.reshape(n, height // side, side, width // side, side)
    return split.swapaxes(2, 3).reshape(n, height // side, width // side, side**2)


def on_grid(maps: Sequence[Array], images: Array) -> Array:
    """Return the features of images [N, H, W] on the grid of their patches, [N, G, G, F].

    They are the `maps` [N, h, w, C] of an encoder's levels, resized, and the patches' pixels.
    """
    pixels = patches(images, patch_side(images.shape[1]))
    resized = [
        jax.image.resize(one.astype(jnp.float32), (*pixels.shape[:3], one.shape[-1]), "linear")
        for one in maps
    ]
    return jnp.concatenate([*resized, pixels], axis=-1)


def _between(heights: Array, positions: Array) -> tuple[Array, Array]:
    """Return the knot below each position, and the share in [0, 1] of the one above it."""
    place = jnp.interp(positions, heights, jnp.arange(len(heights), dtype=jnp.float32))
    lower = jnp.clip(place.astype(jnp.int32), 0, len(heights) - 2)
    return lower, place - lower


def _nothing(count: int, shape: tuple[int, ...]) -> Moments:
    of_slice = (count, *shape)
    return Moments(jnp.zeros(count), jnp.zeros(of_slice), jnp.zeros((*of_slice, shape[-1])))


@functools.partial(jax.jit, donate_argnums=0)
def _add(moments: Moments, heights: Array, features: Array, positions: Array) -> Moments:
    """Add slices to the sums, in place; only the knots that they span cost time."""
    lower, share = _between(heights, positions)

    def at_knot(knot: Array, moments: Moments) -> Moments:
        weight = jnp.where(lower == knot, 1 - share, 0) + jnp.where(lower + 1 == knot, share, 0)
        weighted = features * weight[:, None, None, None]
        more = Moments(
            weight.sum(),
            weighted.sum(0),
            jnp.einsum("nhwi,nhwj->hwij", weighted, features, precision=lax.Precision.HIGHEST),
        )
        return jax.tree.map(lambda sums, one: sums.at[knot].add(one), moments, more)

    return lax.fori_loop(lower.min(), lower.max() + 2, at_knot, moments)


@jax.jit
def _gaussians(moments: Moments, heights: Array) -> Dense:
    weight = moments.weight[:, None, None, None]
    mean = moments.first / weight
    square = moments.second / weight[..., None]
    covariance = square - mean[..., :, None] * mean[..., None, :]
    everywhere = jnp.diagonal(square, axis1=-2, axis2=-1).mean((0, 1, 2))
    overall = jnp.maximum(everywhere - jnp.square(mean.mean((0, 1, 2))), 0).mean()
    unit = jnp.broadcast_to(jnp.eye(mean.shape[-1]), covariance.shape)
    factor = jnp.linalg.cholesky(covariance + (RIDGE * overall + EPSILON) * unit)
    return Dense(heights, mean, jax.scipy.linalg.solve_triangular(factor, unit, lower=True))
