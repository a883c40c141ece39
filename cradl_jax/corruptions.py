"""Random corruptions of a healthy slice that a network learns to undo or to tell, beyond the paper.

Coarse noise is that of Kascenas et al. (2022, "Denoising Autoencoders for Unsupervised Anomaly
Detection in Brain MRI"). Foreign patches are those of Tan et al. (2020, arXiv:2011.04197), and with
a smooth bias and a degree as Naval Marimont et al. (2024, arXiv:2311.15453) grade them. Boxes and
scars are cut and pasted as by Li et al. (2021, arXiv:2104.04015), blocks hidden as by He et al.
(2022, arXiv:2111.06377).

They are another family than the anomalies that studies are made with (those of the module
`anomalies`): no shape and no texture is rendered, as for foreign objects, and no brightness is that
of a lesion. What is put into a slice is tissue of another healthy slice, or the slice's own, from
elsewhere, or brighter or darker by a smooth field, in a box. The latter is nearest to a lesion.

All are pure functions of a key, `(key, image [H, W], ...) -> image`, and change nothing outside the
brain, which is where the image is not 0; but `hidden_blocks` says where, and anywhere.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cradl_jax.intensity import CLIP
from cradl_jax.models.sizes import levels
from cradl_jax.ops.random import normal

NOISE_GRID = 16  # numbers along each side, at any size of the image
BIAS_GRID = 4
BIAS = 1.0  # standard deviation of the field at the points of its grid
SIDES = (0.1, 0.45)  # of a box, as shares of the image's
BOXES = 2
EDGE = 1.0  # pixels within which the border of a box falls from 73 to 27 %
AREA = (0.02, 0.15)  # of a pasted box, as shares of the brain's
ASPECT = 3.3  # its longer side over its shorter one, at most
WIDTH, LENGTH = (1 / 64, 1 / 16), (1 / 10, 1 / 4)  # of a pasted scar, as shares of the image's side
TILT = np.pi / 4  # of a scar, at most
JITTER = 0.1  # of pasted contrast, and of pasted brightness as a share of `CLIP`
HIDDEN = 0.75  # of the blocks of an image


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
    row, column = pixel_of(place_key, brain)
    sides = jax.random.uniform(sides_key, (2,), minval=SIDES[0], maxval=SIDES[1])

    def along(size: int, middle: Array, side: Array) -> Array:
        beyond = jnp.abs(jnp.arange(size) - middle) - size * side / 2
        return jax.nn.sigmoid(-beyond / EDGE)

    height, width = brain.shape
    return along(height, row, sides[0])[:, None] * along(width, column, sides[1])


def pixel_of(key: Array, brain: Array) -> Array:
    """Draw row and column of a pixel of the brain [H, W]; the first pixel where there is none.

    Pixels are counted row by row, then in one row: a CPU takes a tenth of the time for it.
    """
    until = jnp.cumsum(brain.sum(1))
    drawn = jax.random.uniform(key) * until[-1]
    row = jnp.argmax(until > drawn)
    within = until[row] - brain[row].sum() + jnp.cumsum(brain[row])
    return jnp.stack([row, jnp.argmax(within > drawn)])


def cut_paste(key: Array, image: Array) -> Array:
    """Paste an upright box of a slice [H, W] elsewhere into it (CutPaste), see `pasted`.

    Its area is 2 to 15 % of the brain's, of the image's in Li et al.
    """
    area_key, aspect_key, paste_key = jax.random.split(key, 3)
    low, high = AREA
    area = (image != 0).sum() * jax.random.uniform(area_key, minval=low, maxval=high)
    aspect = ASPECT ** jax.random.uniform(aspect_key, minval=-1.0)
    return pasted(paste_key, image, jnp.sqrt(area * aspect), jnp.sqrt(area / aspect), 0.0)


def cut_paste_scar(key: Array, image: Array) -> Array:
    """Paste a long thin box of a slice [H, W], turned by up to 45 degrees, elsewhere into it.

    (CutPaste-Scar.) In slices of 64 pixels it is 1 to 4 pixels wide and 6 to 16 long. The 2 to 16
    by 10 to 25 of 256 of Li et al. would be a few pixels there.
    """
    width_key, length_key, tilt_key, paste_key = jax.random.split(key, 4)
    width, length = (
        len(image) * jax.random.uniform(one, minval=low, maxval=high)
        for one, (low, high) in ((width_key, WIDTH), (length_key, LENGTH))
    )
    tilt = jax.random.uniform(tilt_key, minval=-TILT, maxval=TILT)
    return pasted(paste_key, image, length, width, tilt)


def pasted(key: Array, image: Array, height: Array, width: Array, tilt: Array | float) -> Array:
    """Paste what lies in a box around one pixel of the brain around another one, jittered.

    Tissue is pasted on tissue alone: where either place shows background, nothing changes.

    Args:
        key: draws both pixels and the jitter.
        image: [H, W].
        height: of the box, pixels.
        width: of the box, pixels.
        tilt: of the box, radians; what it holds is moved, not turned.
    """
    from_key, to_key, jitter_key = jax.random.split(key, 3)
    brain = image != 0
    source, target = pixel_of(from_key, brain), pixel_of(to_key, brain)
    moved = jnp.roll(image, target - source, (0, 1))
    contrast, brightness = jax.random.uniform(jitter_key, (2,), minval=-JITTER, maxval=JITTER)
    jittered = jnp.clip((1 + contrast) * moved + CLIP * brightness, -CLIP, CLIP)
    down, right = (
        jnp.arange(size) - middle for size, middle in zip(image.shape, target, strict=True)
    )
    cos, sin = jnp.cos(tilt), jnp.sin(tilt)
    along = cos * down[:, None] + sin * right
    across = cos * right - sin * down[:, None]
    box = (jnp.abs(along) <= height / 2) & (jnp.abs(across) <= width / 2)
    return jnp.where(box & brain & (moved != 0), jittered, image)


def hidden_blocks(key: Array, size: int) -> Array:
    """Draw which pixels of an image are hidden, 75 % of its blocks, bool [size, size].

    Four blocks lie where the encoder's last map has a pixel: of 8 x 8 pixels in images of 64.
    """
    side = 2 * (size >> levels(size))
    order = jax.random.permutation(key, side**2)
    hidden = (order < round(HIDDEN * side**2)).reshape(side, side)
    return hidden.repeat(size // side, 0).repeat(size // side, 1)
