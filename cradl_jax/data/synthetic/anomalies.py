"""Anomalies put into healthy volumes, each a pure function of a key.

`paste_object` renders a foreign object into the brain, as the paper's HCP Synth. (Section 4.1,
after the Medical Out-of-Distribution Analysis Challenge, Zimmerer et al. 2020): it differs from
tissue by texture and not only by brightness (Figure 4). `add_lesions` and `scanner_shift` stand in
for ISLES and BraTS: lesions that glow in T2, seen by another scanner. Lengths are in mm and
intensities relative to the volume's own brain, so that real scans serve as well as phantoms.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from cradl_jax.data.synthetic.phantom import Spacing, smooth_field

# Radii of foreign objects; with them the prevalences are those of HCP Synth. in Table 1.
SMALLEST_MM, LARGEST_MM = (27.0, 27.0, 12.5), (43.0, 43.0, 25.0)
# A large lesion and sometimes a small one; prevalences between those of ISLES and BraTS in Table 1.
LESION_MM = ((20.0, 42.0), (8.0, 16.0))
BORDER_MM = 2.0  # of a lesion
BALL_MM, STRIPES_MM = 18.0, 14.0  # radius of a ball, and the wavelength of its stripes
DEPTH_MM = 14.0  # of an anomaly's center under the brain's surface, in its slice


def _millimeters(shape: tuple[int, ...], spacing_mm: Spacing) -> Array:
    axes = jnp.meshgrid(*map(jnp.arange, shape), indexing="ij")
    return jnp.stack(axes, axis=-1) * jnp.array(spacing_mm)


def _center(key: Array, brain: Array, positions: Array, spacing_mm: Spacing) -> Array:
    """Position of a voxel with brain around it, every axial slice being equally likely, [3] mm.

    Otherwise the slices with most brain would have most anomalies, and the area of the brain would
    tell them.
    """
    inside = brain
    for axis, step in enumerate(spacing_mm[:2]):
        for direction in (-1, 1):
            inside &= jnp.roll(brain, direction * round(DEPTH_MM / step), axis)
    chance = jnp.where(inside, 1 / jnp.maximum(inside.sum((0, 1)), 1), 0)
    return positions.reshape(-1, 3)[jax.random.categorical(key, jnp.log(chance).ravel())]


def _rotation(key: Array) -> Array:
    """Draw a turn in the axial plane and a small tilt out of it, [3, 3]."""
    turn_key, tilt_key = jax.random.split(key)
    turn = jax.random.uniform(turn_key, maxval=2 * jnp.pi)
    x, y = jax.random.uniform(tilt_key, (2,), minval=-0.3, maxval=0.3)
    return jax.scipy.linalg.expm(jnp.array([[0, -turn, y], [turn, 0, -x], [-y, x, 0]]))


def _superellipsoid(key: Array, p: Array) -> Array:
    """Octahedra, ellipsoids, boxes: below 1 inside, for positions in units of the radii."""
    exponent = jax.random.choice(key, jnp.array([1.2, 2.0, 2.0, 6.0]))
    return (jnp.abs(p) ** exponent).sum(-1) ** (1 / exponent) / 0.85


def _torus(key: Array, p: Array) -> Array:
    thickness = jax.random.uniform(key, minval=0.45, maxval=0.6)
    ring = jnp.hypot(p[..., 0], p[..., 1]) - (1 - thickness)
    return jnp.hypot(ring, p[..., 2]) / thickness


def _star(key: Array, p: Array) -> Array:
    """Render a ball with lobes around one axis."""
    lobes = jax.random.randint(key, (), 3, 8)
    angle = jnp.arctan2(p[..., 1], p[..., 0])
    return jnp.linalg.norm(p, axis=-1) / (0.75 + 0.25 * jnp.cos(lobes * angle))


def _tube(key: Array, p: Array) -> Array:
    """Render a bent rod along the first axis."""
    bend = jax.random.uniform(key, minval=-0.6, maxval=0.6)
    across = jnp.hypot(p[..., 1] - bend * (2 * p[..., 0] ** 2 - 1), p[..., 2]) / 0.65
    return jnp.maximum(jnp.abs(p[..., 0]), across)


SHAPES = (_superellipsoid, _torus, _star, _tube)


TEXTURES: tuple[Callable[[Array, Array], Array], ...] = (
    lambda key, q: jnp.sign(jnp.sin(q[..., 0])),  # stripes
    lambda key, q: jnp.sin(q[..., 0]) * jnp.cos(0.5 * q[..., 1]),  # waves
    lambda key, q: jnp.sign(jnp.prod(jnp.sin(q), axis=-1)),  # a checkerboard
    lambda key, q: jax.random.normal(key, q.shape[:-1]),  # grain
    lambda key, q: jnp.clip(q[..., 0] / 6, -1.5, 1.5),  # a gradient
    lambda key, q: jnp.zeros(q.shape[:-1]),  # flat
)
"""Patterns at phases `q` [..., 3] from a shape's center."""


@partial(jax.jit, static_argnames="spacing_mm")
def paste_object(
    key: Array, volume: Array, brain: Array, spacing_mm: Spacing
) -> tuple[Array, Array]:
    """Render a foreign object of random shape, size, texture and brightness into the brain.

    `volume` [X, Y, Z] is 0 outside the `brain`, [X, Y, Z] bool.

    Returns:
        The volume, changed only where the mask is set, and the mask, inside the brain.
    """
    keys = jax.random.split(key, 7)
    positions = _millimeters(volume.shape, spacing_mm)
    center = _center(keys[0], brain, positions, spacing_mm)
    smallest, largest = jnp.array(SMALLEST_MM), jnp.array(LARGEST_MM)
    radii = jax.random.uniform(keys[1], (3,), minval=smallest, maxval=largest)
    local = (positions - center) @ _rotation(keys[2])
    shape, texture = jax.random.randint(keys[3], (2,), 0, jnp.array([len(SHAPES), len(TEXTURES)]))
    distance = jax.lax.switch(shape, [partial(f, keys[4]) for f in SHAPES], local / radii)
    wavelength = jax.random.uniform(keys[5], minval=9.0, maxval=20.0)
    phase = local * (2 * jnp.pi / wavelength)
    pattern = jax.lax.switch(texture, [partial(f, keys[4]) for f in TEXTURES], phase)

    sign_key, base_key, amplitude_key = jax.random.split(keys[6], 3)
    base = jax.random.rademacher(sign_key) * jax.random.uniform(base_key, minval=0.0, maxval=0.8)
    amplitude = jax.random.uniform(amplitude_key, minval=0.6, maxval=1.1)
    level, deviation = _moments(volume, brain)
    painted = level + deviation * (base + amplitude * pattern)
    mask = (distance < 1) & brain
    return jnp.where(mask, jnp.maximum(painted, 1e-3 * level), volume), mask


@partial(jax.jit, static_argnames="spacing_mm")
def add_lesions(
    key: Array, volume: Array, brain: Array, spacing_mm: Spacing
) -> tuple[Array, Array]:
    """Add one or two lesions: bright in T2, irregular, with soft borders.

    Arguments and result as of `paste_object`; the mask holds what is at least half lesion.
    """
    count_key, glow_key, *keys = jax.random.split(key, 2 + len(LESION_MM))
    count = jax.random.randint(count_key, (), 1, len(LESION_MM) + 1)
    positions = _millimeters(volume.shape, spacing_mm)
    level, deviation = _moments(volume, brain)
    share = jnp.zeros_like(volume)
    for number, (lesion_key, sizes_mm) in enumerate(zip(keys, LESION_MM, strict=True)):
        lesion = _lesion(lesion_key, brain, positions, spacing_mm, sizes_mm)
        share = jnp.maximum(share, jnp.where(number < count, lesion, 0))
    share = jnp.where(brain, share, 0)
    glow = level + deviation * jax.random.uniform(glow_key, minval=0.8, maxval=2.4)
    lesioned = volume + share * jnp.maximum(glow - volume, 0) * 0.9
    return jnp.where(share > 0.02, lesioned, volume), share >= 0.5


def _lesion(
    key: Array, brain: Array, positions: Array, spacing_mm: Spacing, sizes_mm: tuple[float, float]
) -> Array:
    """Share of a lesion in every voxel, falling from 1 to 0 over a few mm."""
    center_key, radius_key, shape_key, field_key = jax.random.split(key, 4)
    center = _center(center_key, brain, positions, spacing_mm)
    radius = jax.random.uniform(radius_key, minval=sizes_mm[0], maxval=sizes_mm[1])
    stretch = jax.random.uniform(shape_key, (3,), minval=0.8, maxval=1.25)
    stretch *= jnp.array([1, 1, 0.75])  # wider than tall
    wobble = smooth_field(field_key, brain.shape, spacing_mm, 14.0, 1)[..., 0]
    distance = jnp.linalg.norm((positions - center) / stretch, axis=-1) / radius
    return jax.nn.sigmoid((1 + 0.2 * wobble - distance) * radius / BORDER_MM)


@partial(jax.jit, static_argnames="spacing_mm")
def scanner_shift(key: Array, volume: Array, brain: Array, spacing_mm: Spacing) -> Array:
    """Show the same brain in another scanner: other contrast, more bias, blur and noise."""
    gamma_key, bias_key, noise_key, blur_key = jax.random.split(key, 4)
    level, _ = _moments(volume, brain)
    gamma = jax.random.uniform(gamma_key, minval=0.8, maxval=1.3)
    volume = level * (volume / level) ** gamma
    blur = jax.random.uniform(blur_key, minval=0.1, maxval=0.25)
    for axis in range(3):
        neighbors = jnp.roll(volume, 1, axis) + jnp.roll(volume, -1, axis)
        volume = (1 - blur) * volume + blur * neighbors / 2
    bias = smooth_field(bias_key, volume.shape, spacing_mm, 80.0, 1)[..., 0]
    real, imaginary = 0.03 * level * jax.random.normal(noise_key, (2, *volume.shape))
    magnitude = jnp.hypot(volume * jnp.exp(0.08 * bias) + real, imaginary)
    return jnp.where(brain, jnp.maximum(magnitude, 1e-3 * level), 0)


@partial(jax.jit, static_argnames="spacing_mm")
def paint_ball(
    key: Array, volume: Array, brain: Array, spacing_mm: Spacing, brightness: Array, texture: Array
) -> tuple[Array, Array]:
    """Render a ball of stripes into the brain; the key decides where it is and how they lie.

    Arguments and result as of `paste_object`.

    Args:
        key: of the place.
        volume: see there.
        brain: see there.
        spacing_mm: see there.
        brightness: mean of the ball less that of the brain, in standard deviations of the latter.
        texture: standard deviation of the ball, in the same unit; 0 is flat.
    """
    center_key, turn_key = jax.random.split(key)
    positions = _millimeters(volume.shape, spacing_mm)
    local = positions - _center(center_key, brain, positions, spacing_mm)
    phase = local @ _rotation(turn_key)[:, 0] * (2 * jnp.pi / STRIPES_MM)
    level, deviation = _moments(volume, brain)
    painted = level + deviation * (brightness + texture * jnp.sign(jnp.sin(phase)))
    mask = (jnp.linalg.norm(local, axis=-1) < BALL_MM) & brain
    return jnp.where(mask, jnp.maximum(painted, 1e-3 * level), volume), mask


def _moments(volume: Array, brain: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of the brain's intensities."""
    count = brain.sum()
    mean = jnp.where(brain, volume, 0).sum() / count
    return mean, jnp.sqrt(jnp.where(brain, (volume - mean) ** 2, 0).sum() / count)
