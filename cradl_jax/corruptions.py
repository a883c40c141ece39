"""Random corruptions of a healthy slice that a network learns to undo, beyond the paper.

Coarse noise is that of Kascenas et al. (2022, "Denoising Autoencoders for Unsupervised Anomaly
Detection in Brain MRI"). Foreign patches are those of Tan et al. (2020, arXiv:2011.04197), and with
a smooth bias and a degree as Naval Marimont et al. (2024, arXiv:2311.15453) grade them.

They are another family than the anomalies that studies are made with (those of the module
`anomalies`): no shape and no texture is rendered, as for foreign objects, and no brightness is that
of a lesion. What is put into a slice is tissue of another healthy slice, or the slice's own,
brighter or darker by a smooth field, in a box. The latter is nearest to a lesion.

All are pure functions of a key, `(key, image [H, W], ...) -> image`, and change nothing outside the
brain, which is where the image is not 0.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cradl_jax.ops.random import normal

NOISE_GRID = 16  # numbers along each side, at any size of the image
BIAS_GRID = 4
BIAS = 1.0  # standard deviation of the field at the points of its grid
SIDES = (0.1, 0.45)  # of a box, as shares of the image's
BOXES = 2
EDGE = 1.0  # pixels within which the border of a box falls from 73 to 27 %


def coarse_noise(key: Array, image: Array, deviation: float) -> Array:
    """Add Gaussian noise drawn at 16 x 16, interpolated bilinearly and rolled, inside the brain.

    `deviation` is that of the numbers drawn; between them the noise is weaker, as interpolated.
    """
    noise = deviation * smooth_noise(key, image.shape, NOISE_GRID)
    return image + jnp.where(image != 0, noise, 0)


def smooth_noise(key: Array, shape: tuple[int, ...], grid: int) -> Array:
    """Interpolate `grid` x `grid` normal numbers bilinearly to [H, W] and roll it at random."""
    draw_key, roll_key = jax.random.split(key)
    coarse = normal(draw_key, (grid, grid))
    shifts = jax.random.randint(roll_key, (2,), 0, jnp.array(shape))
    rows, columns = (
        jnp.asarray(interpolation(size, grid))[(jnp.arange(size) - shift) % size]
        for size, shift in zip(shape, shifts, strict=True)
    )
    return jnp.einsum("hi,ij,wj->hw", rows, coarse, columns)


def interpolation(size: int, grid: int) -> np.ndarray:
    """Return the matrix [size, grid] that interpolates `grid` numbers linearly to `size` pixels.

    The first and the last pixel are the first and the last number.
    """
    at = np.linspace(0, grid - 1, size)[:, None]
    return np.maximum(1 - np.abs(at - np.arange(grid)), 0).astype(np.float32)


def foreign_patches(key: Array, image: Array, foreign: Array, degree: Array) -> Array:
    """Blend one or two patches into a slice [H, W]: of another slice, of a smooth bias, or of both.

    Inside a box x becomes (1 - degree) x + degree y, with y the `foreign` slice [H, W] at the same
    place, or x, and in either case with or without a bias. Degree 0 changes nothing; at its border
    a box fades out.
    """
    brain = image != 0
    count_key, *keys = jax.random.split(key, 1 + BOXES)
    count = jax.random.randint(count_key, (), 1, BOXES + 1)
    for number, patch_key in enumerate(keys):
        box_key, kind_key, bias_key = jax.random.split(patch_key, 3)
        kind = jax.random.randint(kind_key, (), 0, 3)  # patch, bias, both
        bias = BIAS * smooth_noise(bias_key, image.shape, BIAS_GRID)
        there = jnp.where(kind == 1, image, foreign) + jnp.where(kind == 0, 0, bias)
        share = degree * soft_box(box_key, brain) * (brain & (number < count))
        image = (1 - share) * image + share * there
    return image


def soft_box(key: Array, brain: Array) -> Array:
    """Return a random box around a pixel of the brain [H, W]: 1 inside, 0 outside, smooth between.

    A slice without brain has one around its first pixel.
    """
    place_key, sides_key = jax.random.split(key)
    inside = jnp.cumsum(brain.ravel())
    center = jnp.argmax(inside > jax.random.uniform(place_key) * inside[-1])
    sides = jax.random.uniform(sides_key, (2,), minval=SIDES[0], maxval=SIDES[1])

    def along(size: int, middle: Array, side: Array) -> Array:
        beyond = jnp.abs(jnp.arange(size) - middle) - size * side / 2
        return jax.nn.sigmoid(-beyond / EDGE)

    (height, width), (row, column) = brain.shape, jnp.divmod(center, brain.shape[1])
    return along(height, row, sides[0])[:, None] * along(width, column, sides[1])
