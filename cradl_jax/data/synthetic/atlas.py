"""The ICBM-152 tissue maps from which the phantom is sampled.

nilearn carries the ICBM 2009a nonlinear symmetric average of 152 adults (Fonov et al., NeuroImage
2011) at 1 mm: a T1-weighted template and the probabilities of grey and white matter.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import ndimage

FIELD_OF_VIEW_MM = (196.0, 232.0, 164.0)  # 82 axial slices of 2 mm
HEADROOM_MM = 5  # by which the brain lies below the middle: large heads keep their vertex
PADDING = 20  # voxels around the template, whose field of view ends at the brain


class Atlas(NamedTuple):
    """Maps on the ICBM grid at 1 mm, RAS, cut to `FIELD_OF_VIEW_MM`.

    Attributes:
        tissue: probabilities of cerebrospinal fluid, grey and white matter, [X, Y, Z, 3].
        contrast: T1-weighted intensity less its tissue's mean, what tells nuclei apart, [X, Y, Z].
        to_ventricles: direction in which the ventricles lie, longest 1; on the grid of the
            volumes to be sampled, [X, Y, Z, 3].
        origin_mm: RAS coordinates of the first voxel, [3].
    """

    tissue: Array
    contrast: Array
    to_ventricles: Array
    origin_mm: Array


class Maps(NamedTuple):
    """The whole maps at 1 mm, RAS, with `PADDING` around them, each [X, Y, Z].

    Attributes:
        t1: T1-weighted intensity.
        gray: probability of grey matter.
        white: probability of white matter.
        brain: bool, without holes.
        affine: [4, 4] voxel indices to millimeters.
    """

    t1: np.ndarray
    gray: np.ndarray
    white: np.ndarray
    brain: np.ndarray
    affine: np.ndarray


def read_maps() -> Maps:
    """Read the maps that nilearn carries."""
    from nilearn import datasets  # takes seconds to import

    template = datasets.load_mni152_template(resolution=1)
    matter = (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    images = (template, *(load(resolution=1) for load in matter))
    t1, gray, white = (np.pad(image.get_fdata(dtype=np.float32), PADDING) for image in images)
    brain = ndimage.binary_fill_holes(ndimage.binary_closing(t1 > 0, iterations=2))
    affine = template.affine.copy()
    affine[:3, 3] -= affine[:3, :3].sum(1) * PADDING
    return Maps(t1, gray, white, brain, affine)


def load_atlas(spacing_mm: tuple[float, float, float]) -> Atlas:
    """Read the maps for sampling voxels of `spacing_mm`, over which they are averaged."""
    t1, gray, white, brain, affine = read_maps()
    inside = np.argwhere(brain)
    centered = (inside.min(0) + inside.max(0) + 1 - np.array(FIELD_OF_VIEW_MM, int)) // 2
    start = centered + np.array([0, 0, HEADROOM_MM])
    window = tuple(
        slice(a, a + int(length)) for a, length in zip(start, FIELD_OF_VIEW_MM, strict=True)
    )
    t1, gray, white, brain = (image[window] for image in (t1, gray, white, brain))

    fluid = np.clip(brain - gray - white, 0, 1)
    tissue = np.stack([fluid, gray, white], -1)
    means = (tissue * t1[..., None]).sum((0, 1, 2)) / tissue.sum((0, 1, 2))
    contrast = np.where(brain, t1 - tissue @ means, 0)
    ventricles = (fluid > 0.5) & (ndimage.distance_transform_edt(brain) > 30)  # fluid deep inside
    box = [max(1, round(step)) for step in spacing_mm]
    return Atlas(
        jnp.asarray(ndimage.uniform_filter(tissue, (*box, 0))),
        jnp.asarray(ndimage.uniform_filter(contrast, box)),
        jnp.asarray(_towards(ventricles, spacing_mm)),
        jnp.asarray((affine @ [*start, 1])[:3], jnp.float32),
    )


def _towards(region: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Gradient of the blurred region at `spacing_mm`, its longest vector of length 1."""
    blurred = ndimage.gaussian_filter(region.astype(np.float32), 5)
    direction = np.stack(np.gradient(blurred), -1)
    zoom = [round(n / step) / n for n, step in zip(region.shape, spacing_mm, strict=True)]
    direction = ndimage.zoom(direction, (*zoom, 1), order=1, grid_mode=True, mode="nearest")
    return direction / np.linalg.norm(direction, axis=-1).max()
