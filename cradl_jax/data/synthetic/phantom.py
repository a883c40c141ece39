"""The embedded data set: healthy, brain-extracted, T2-like volumes, a pure function of a key.

A subject is the ICBM-152 atlas seen through an anatomy of its own (head size and shape, smooth
invertible deformations at several scales, width of ventricles and sulci) and a scan of its own
(tissue contrast, bias field, Rician noise).
"""

import itertools
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cradl_jax.data.synthetic.atlas import FIELD_OF_VIEW_MM, Atlas

GENERATOR = 1  # raised whenever a key comes to give another volume
DEFORMATIONS_MM = ((60.0, 4.5), (28.0, 3.0), (13.0, 1.6))  # correlation length, size
STEEPEST = 0.8  # of a displacement, mm per mm; below 1 the deformation is invertible
INTENSITIES = (1.0, 0.55, 0.36)  # of fluid, grey and white matter in a T2-weighted scan
Spacing = tuple[float, float, float]  # size of a voxel, mm; static under jit


class Subject(NamedTuple):
    """A volume on the grid of `grid_mm`.

    Attributes:
        intensities: [X, Y, Z] float32, about 1 in fluid, exactly 0 outside the brain.
        brain: [X, Y, Z] bool.
        tissue: shares of fluid, grey and white matter in each voxel, [X, Y, Z, 3].
    """

    intensities: Array
    brain: Array
    tissue: Array


def grid_shape(spacing_mm: Spacing) -> tuple[int, int, int]:
    """Voxels along right, anterior and superior."""
    extents = zip(FIELD_OF_VIEW_MM, spacing_mm, strict=True)
    x, y, z = (round(length / step) for length, step in extents)
    return x, y, z


def grid_mm(spacing_mm: Spacing) -> Array:
    """Positions of the voxels' centers from the middle of the field of view, [X, Y, Z, 3] mm."""
    counts = zip(grid_shape(spacing_mm), spacing_mm, strict=True)
    axes = [(jnp.arange(n) - (n - 1) / 2) * step for n, step in counts]
    return jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)


def smooth_field(
    key: Array, shape: tuple[int, ...], spacing_mm: Spacing, scale_mm: float, channels: int
) -> Array:
    """Random fields of about unit variance and correlation length `scale_mm`: [*shape, channels].

    Cubic B-splines over normally distributed control points, `scale_mm` apart.
    """
    counts = [int(n * step / scale_mm) + 4 for n, step in zip(shape, spacing_mm, strict=True)]
    points = jax.random.normal(key, (*counts, channels)) / 0.48**1.5
    weights = [
        _cubic_b_spline(jnp.arange(n)[:, None] * step / scale_mm + 1 - jnp.arange(count))
        for n, step, count in zip(shape, spacing_mm, counts, strict=True)
    ]
    return jnp.einsum("xi,yj,zk,ijkc->xyzc", *weights, points, optimize=True)


def _cubic_b_spline(t: Array) -> Array:
    t = jnp.abs(t)
    return jnp.where(t < 1, 2 / 3 - t**2 + t**3 / 2, jnp.clip(2 - t, 0) ** 3 / 6)


def interpolate(volume: Array, points: Array) -> Array:
    """Trilinear samples of [X, Y, Z, C] at voxel coordinates [..., 3], [..., C]; edges go on."""
    last = jnp.array(volume.shape[:3]) - 1
    points = lax.optimization_barrier(jnp.clip(points, 0, last))  # once for all corners
    corner = jnp.minimum(points.astype(int), last - 1)
    upper = points - corner
    _, ny, nz, channels = volume.shape
    flat = volume.reshape(-1, channels)
    index = (corner[..., 0] * ny + corner[..., 1]) * nz + corner[..., 2]
    total = 0.0
    for x, y, z in itertools.product((0, 1), repeat=3):
        side = jnp.where(jnp.array([x, y, z]) == 1, upper, 1 - upper)
        total += side.prod(-1)[..., None] * flat[index + (x * ny + y) * nz + z]
    return jnp.asarray(total)


def head_shape(key: Array) -> Array:
    """Draw an affine map from head to atlas, [3, 3]: size, proportions, tilt and shear."""
    size_key, shape_key, tilt_key, shear_key = jax.random.split(key, 4)
    size = 1 + 0.03 * jax.random.normal(size_key)
    scale = size * (1 + 0.025 * jax.random.truncated_normal(shape_key, -2, 2, (3,)))
    x, y, z = jnp.deg2rad(jnp.array([2.0, 1.5, 2.0])) * jax.random.normal(tilt_key, (3,))
    tilt = jnp.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    shear = 0.02 * jnp.triu(jax.random.normal(shear_key, (3, 3)), 1)
    return jax.scipy.linalg.expm(tilt) @ (jnp.eye(3) + shear) / scale


def deformation(key: Array, atlas: Atlas, spacing_mm: Spacing) -> Array:
    """Where each voxel of the subject lies in the atlas, RAS mm, [X, Y, Z, 3].

    Displacements of several scales, and one towards or away from the ventricles, are added up
    and, where too steep, made smaller as a whole, so that the map can be inverted.
    """
    affine_key, ventricle_key, shift_key, *field_keys = jax.random.split(key, 6)
    shape = grid_shape(spacing_mm)
    center = atlas.origin_mm + (jnp.array(FIELD_OF_VIEW_MM) - 1) / 2
    base = center + grid_mm(spacing_mm) @ head_shape(affine_key).T
    base += 1.5 * jax.random.truncated_normal(shift_key, -2, 2, (3,))
    displacement = sum(
        size * smooth_field(field_key, shape, spacing_mm, scale, 3)
        for field_key, (scale, size) in zip(field_keys, DEFORMATIONS_MM, strict=True)
    )
    widening = jax.random.uniform(ventricle_key, minval=-1.5, maxval=4.0)
    displacement += widening * atlas.to_ventricles
    displacement = lax.optimization_barrier(displacement)
    steepness = jnp.max(
        sum(
            jnp.abs(jnp.diff(displacement, axis=axis)).max(axis=(0, 1, 2)) / spacing_mm[axis]
            for axis in range(3)
        )
    )
    return base + displacement * jnp.minimum(1, STEEPEST / steepness)


@partial(jax.jit, static_argnames="spacing_mm")
def sample_healthy(key: Array, atlas: Atlas, spacing_mm: Spacing) -> Subject:
    """Render a healthy subject's scan on the grid of `grid_mm`."""
    keys = jax.random.split(key, 5)
    points = deformation(keys[0], atlas, spacing_mm) - atlas.origin_mm
    tissue = interpolate(atlas.tissue, points)
    contrast = interpolate(atlas.contrast[..., None], points)[..., 0]
    brain = tissue.sum(-1) > 0.5
    tissue = _individual(keys[1], tissue, spacing_mm) * brain[..., None]

    levels = jnp.array(INTENSITIES) * (
        1 + jnp.array([0.08, 0.05, 0.05]) * jax.random.truncated_normal(keys[2], -2, 2, (3,))
    )
    nuclei = jnp.where(tissue[..., 0] < 0.2, contrast, 0)  # iron: bright in T1, dark in T2
    texture = 0.02 * smooth_field(keys[4], brain.shape, spacing_mm, 4.0, 1)[..., 0]
    signal = (tissue @ levels - 0.6 * nuclei) * (1 + texture)
    return Subject(acquire(keys[3], signal, brain, spacing_mm), brain, tissue)


def _individual(key: Array, tissue: Array, spacing_mm: Spacing) -> Array:
    """Turn the average's blurred shares into one subject's: crisp, with folds of its own."""
    width_key, fold_key = jax.random.split(key)
    width = jax.random.uniform(width_key, minval=0.6, maxval=1.4)
    folds = 0.8 * smooth_field(fold_key, tissue.shape[:3], spacing_mm, 10.0, 3)
    logits = 2.2 * jnp.log(tissue + 1e-3) + folds + jnp.array([width, 0.0, 0.0])
    return lax.optimization_barrier(jax.nn.softmax(logits, axis=-1))


def acquire(
    key: Array, signal: Array, brain: Array, spacing_mm: Spacing, noise: float = 0.02
) -> Array:
    """Scan a signal: bias field and Rician noise of standard deviation `noise`, 0 off the brain."""
    bias_key, level_key, *noise_keys = jax.random.split(key, 4)
    bias = 0.06 * smooth_field(bias_key, signal.shape, spacing_mm, 70.0, 1)[..., 0]
    level = noise * jax.random.uniform(level_key, minval=0.7, maxval=1.3)
    real, imaginary = (level * jax.random.normal(k, signal.shape) for k in noise_keys)
    magnitude = jnp.hypot(signal * jnp.exp(bias) + real, imaginary)
    return jnp.where(brain, jnp.maximum(magnitude, 1e-3), 0)


def affine(spacing_mm: Spacing) -> np.ndarray:
    """Voxel indices to RAS mm, the middle of the field of view at 0, [4, 4]."""
    shape = np.array(grid_shape(spacing_mm))
    matrix = np.diag([*spacing_mm, 1.0])
    matrix[:3, 3] = -(shape - 1) / 2 * spacing_mm
    return matrix
