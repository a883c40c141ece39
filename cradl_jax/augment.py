"""Random transforms of one slice, `(key, image [H, W]) -> image`, and their composition.

The paper's views (Section 4.3, appendix D): random cropping, scaling, mirroring, rotation,
multiplicative brightness and additive Gaussian noise. A batch is transformed by `jax.vmap`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from cradl_jax.intensity import CLIP
from cradl_jax.ops.gather import squares
from cradl_jax.ops.random import normal

Transform = Callable[[Array, Array], Array]


def compose(*transforms: Transform) -> Transform:
    """Return one transform that applies `transforms` in turn, each with a key of its own."""

    def composed(key: Array, image: Array) -> Array:
        for transform, subkey in zip(
            transforms, jax.random.split(key, len(transforms)), strict=True
        ):
            image = transform(subkey, image)
        return image

    return composed


def affine(image: Array, matrix: Array, shift: Array) -> Array:
    """Resample [H, W] bilinearly at `matrix @ (p - center) + center + shift` for each pixel p.

    Outside the image its border value is continued. `matrix` is [2, 2], `shift` [2] in pixels.
    """
    height, width = image.shape
    rows = jnp.arange(height)[:, None] - (height - 1) / 2
    columns = jnp.arange(width) - (width - 1) / 2

    def along(axis: int, size: int) -> tuple[Array, Array]:
        """Return the pixel before each point, and the distance from it to the point."""
        point = matrix[axis, 0] * rows + matrix[axis, 1] * columns + shift[axis]
        point = jnp.clip(point + (size - 1) / 2, 0, size - 1)
        before = jnp.minimum(point.astype(int), size - 2)
        return before, point - before

    (row, down), (column, right) = along(0, height), along(1, width)
    here, beside, below, across = squares(image, row * width + column)
    top = (1 - right) * here + right * beside
    bottom = (1 - right) * below + right * across
    return (1 - down) * top + down * bottom


def crop_scale_mirror_rotate(
    shift: float,
    scale: tuple[float, float] = (0.9, 1.2),
    rotation: float = 0.1,
    mirroring: float = 0.5,
) -> Transform:
    """Crop, scale, mirror and rotate at random, in one interpolation.

    Args:
        shift: largest displacement along each axis, as a share of the image's side.
        scale: smallest and largest magnification; half of the draws shrink, half magnify.
        rotation: largest angle, radians.
        mirroring: probability that left and right (the last axis) are swapped, before all else.
    """

    def transform(key: Array, image: Array) -> Array:
        keys = jax.random.split(key, 5)
        angle = jax.random.uniform(keys[0], minval=-rotation, maxval=rotation)
        smaller = jax.random.uniform(keys[1], minval=scale[0], maxval=1.0)
        larger = jax.random.uniform(keys[1], minval=1.0, maxval=scale[1])
        magnification = jnp.where(jax.random.bernoulli(keys[2]), larger, smaller)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        matrix = jnp.array([[cos, -sin], [sin, cos]]) / magnification
        offset = jax.random.uniform(keys[3], (2,), minval=-shift, maxval=shift)
        side = jnp.where(jax.random.bernoulli(keys[4], mirroring), -1.0, 1.0)
        sides = jnp.array([1.0, side])
        return affine(image, sides[:, None] * matrix, sides * offset * jnp.array(image.shape))

    return transform


def brightness(low: float = 0.95, high: float = 1.1) -> Transform:
    """Multiply the image by one factor drawn uniformly from [low, high)."""

    def transform(key: Array, image: Array) -> Array:
        return image * jax.random.uniform(key, minval=low, maxval=high)

    return transform


def gaussian_noise(largest: float = 0.05) -> Transform:
    """Add Gaussian noise whose standard deviation is drawn uniformly from [0, largest)."""

    def transform(key: Array, image: Array) -> Array:
        level_key, noise_key = jax.random.split(key)
        deviation = jax.random.uniform(level_key, maxval=largest)
        return image + deviation * normal(noise_key, image.shape)

    return transform


def clip(limit: float = CLIP) -> Transform:
    """Clip to [-limit, limit], the range of normalized slices (Section 4.1)."""
    return lambda key, image: jnp.clip(image, -limit, limit)


@functools.lru_cache
def views(
    *, mirroring: float, shift: float, scale: tuple[float, float], rotation: float, noise: float
) -> Transform:
    """Compose the transforms of appendix D, in order; SimCLR's views shift (crop), a VAE's do not.

    The same arguments give the same function.
    """
    return compose(
        crop_scale_mirror_rotate(shift, scale, rotation, mirroring),
        brightness(),
        gaussian_noise(noise),
        clip(),
    )


def cut_out(key: Array, image: Array, most: int = 3, limit: float = CLIP) -> Array:
    """Paint 1 to `most` random rectangles over an image [H, W] (ceVAE's masking, appendix B).

    Their sides are up to half the image's, their values uniform in [-limit, limit].
    """
    count_key, *keys = jax.random.split(key, 1 + most)
    count = jax.random.randint(count_key, (), 1, most + 1)
    height, width = image.shape
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    for number, rectangle in enumerate(keys):
        h, w, top, left, value = jax.random.uniform(rectangle, (5,))
        h, w = 1 + h * (height / 2 - 1), 1 + w * (width / 2 - 1)
        top, left = top * (height - h), left * (width - w)
        inside = (rows >= top) & (rows < top + h) & (columns >= left) & (columns < left + w)
        image = jnp.where(inside & (number < count), limit * (2 * value - 1), image)
    return image
