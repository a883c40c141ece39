"""The template: an average brain in the contrast of T2, made from the ICBM-152 tissue maps."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from cradl_jax.data.synthetic.atlas import read_maps
from cradl_jax.preparation.images import to_itk

FIELD_MM = (192.0, 224.0, 176.0)
"""Of the grid of prepared scans along R, A and S: an adult's brain and some room around it."""
BRIGHTNESS = (3.0, 2.0, 1.0)  # of fluid, grey and white matter
AROUND_MM = 10  # beyond the brain, where a scan should be empty


class Template(NamedTuple):
    """An average brain at 1 mm, in RAS millimeters of the ICBM space.

    Attributes:
        brightness: [X, Y, Z] float32, 0 outside the brain.
        brain: [X, Y, Z] bool.
        around: [X, Y, Z] bool, the brain and `AROUND_MM` beyond it.
        affine: [4, 4] voxel indices to millimeters.
        middle_mm: [3] middle of the brain's box.
    """

    brightness: np.ndarray
    brain: np.ndarray
    around: np.ndarray
    affine: np.ndarray
    middle_mm: np.ndarray


@cache
def load_template() -> Template:
    """Read the template from the maps that nilearn carries (Fonov et al., NeuroImage 2011)."""
    _, gray, white, brain, affine = read_maps()
    fluid = np.clip(brain - gray - white, 0, 1)
    maps = (fluid, gray, white)
    brightness = sum(light * one for light, one in zip(BRIGHTNESS, maps, strict=True))
    brightness = (brightness * brain).astype(np.float32)
    (box,) = ndimage.find_objects(brain.view(np.uint8))
    near = tuple(slice(max(0, s.start - AROUND_MM), s.stop + AROUND_MM) for s in box)
    around = np.zeros_like(brain)
    around[near] = ndimage.distance_transform_edt(~brain[near]) <= AROUND_MM  # voxels are of 1 mm
    return Template(brightness, brain, around, affine, middle_of(brain, affine))


def middle_of(brain: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the middle of the box of a brain [X, Y, Z] bool in millimeters, [3]."""
    (box,) = ndimage.find_objects(brain.view(np.uint8))
    middle = [(side.start + side.stop - 1) / 2 for side in box]
    return affine[:3, :3] @ middle + affine[:3, 3]


def grid_affine(template: Template, spacing_mm: float) -> np.ndarray:
    """Return [4, 4]: where the voxels of prepared scans lie, around the template's middle."""
    shape = np.array(grid_shape(spacing_mm))
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = template.middle_mm - spacing_mm * (shape - 1) / 2
    return affine


def grid_shape(spacing_mm: float) -> tuple[int, int, int]:
    """Return the number of voxels of prepared scans along R, A and S."""
    x, y, z = (round(length / spacing_mm) for length in FIELD_MM)
    return x, y, z


def grid(template: Template, spacing_mm: float) -> Any:
    """Return an empty image on the grid of prepared scans."""
    empty = np.zeros(grid_shape(spacing_mm), np.float32)
    return to_itk(empty, grid_affine(template, spacing_mm))
