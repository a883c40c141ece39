"""Prepare one scan: extract the brain, even out its brightness, align it, and put it on the grid.

The way back, from the grid of prepared scans to the scan's own, is `to_scan`.
"""

from typing import Any, NamedTuple

import numpy as np

from cradl_jax.data.scans.preparation import Preparation
from cradl_jax.data.scans.volumes import Volume
from cradl_jax.errors import InputError
from cradl_jax.preparation import images
from cradl_jax.preparation.alignment import align, distance_mm, turn_degrees
from cradl_jax.preparation.bias import corrected
from cradl_jax.preparation.extraction import find_brain
from cradl_jax.preparation.images import from_itk, resample, to_itk
from cradl_jax.preparation.template import Template, grid, grid_affine

LEAST_OVERLAP = 0.7
"""Dice coefficient with the template's brain, which is large; adults had 0.81 and more."""
SETTLED_MM = 0.6
"""What an alignment moves, on average, if it is repeated; if more, the first one was wrong."""
LOST_MM = 10
"""What a repetition moves a brain by that no alignment was found for; turned ones had up to 3."""
DARKEST = 1e-3
"""Of the brain's median: what is darker within the brain is set to it, as 0 is the background."""


class Prepared(NamedTuple):
    """A scan on the grid of prepared scans.

    Attributes:
        data: [X, Y, Z] float32, exactly 0 outside the brain.
        brain: [X, Y, Z] bool.
        annotation: [X, Y, Z] bool, or None.
        affine: [4, 4] voxel indices to millimeters of the template.
        to_template: [4, 4] moves the scan's RAS millimeters onto the template's.
        measures: what quality control looks at, by name.
    """

    data: np.ndarray
    brain: np.ndarray
    annotation: np.ndarray | None
    affine: np.ndarray
    to_template: np.ndarray
    measures: dict[str, float]


def prepare(
    volume: Volume, annotation: np.ndarray | None, settings: Preparation, template: Template
) -> Prepared:
    """Prepare a scan, from `volumes.read_head`, and the annotation of its anomalies.

    Raises:
        InputError: If a step fails; the message names it.
    """
    brain = find_brain(volume, settings.extract)
    even, bias = corrected(volume.data, brain, volume.affine)
    target = grid(template, settings.spacing_mm)
    to_template, residual = _settled(even * brain, volume.affine, settings, template, target)

    def moved(values: np.ndarray) -> np.ndarray:
        return _placed(values, volume.affine, to_template, target)

    there = moved(brain) >= 0.5
    whole = template_brain(template, target) >= 0.5
    overlap = _dice(there, whole)
    if overlap < LEAST_OVERLAP:
        raise InputError(
            f"alignment: expected an overlap of {LEAST_OVERLAP} or more with the template's brain "
            f"(Dice), found {overlap:.2f}; look at the scan's orientation and brain extraction, or "
            "prepare it with --align=none"
        )
    darkest = DARKEST * float(np.median(even[brain]))
    data = np.where(there, np.maximum(moved(even), darkest), 0).astype(np.float32)
    measures = {
        "brain_ml": float(np.count_nonzero(brain) * np.prod(volume.spacing_mm) / 1000),
        "overlap": overlap,
        "bias": bias,
        "turned_degrees": turn_degrees(to_template),
    }
    if residual is not None:
        measures |= {
            "residual_degrees": turn_degrees(residual),
            "residual_mm": distance_mm(residual, np.eye(4), template),
        }
        if measures["residual_mm"] > LOST_MM:
            raise InputError(
                f"alignment: expected a brain that stays within {LOST_MM} mm when it is aligned "
                f"again, found that it moves by {measures['residual_mm']:.0f} mm; look at the "
                "scan's orientation and brain extraction, or prepare it with --align=none"
            )
    marked = None if annotation is None else moved(annotation) >= 0.5
    affine = grid_affine(template, settings.spacing_mm)
    return Prepared(data, there, marked, affine, to_template, measures)


def template_brain(template: Template, target: Any) -> np.ndarray:
    """Return how much of each voxel of a grid, an image, is the template's brain."""
    brain = to_itk(template.brain.astype(np.float32), template.affine)
    return from_itk(resample(brain, target, np.eye(4)))


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    """Return the overlap of two masks, 0 apart and 1 the same."""
    return float(2 * np.count_nonzero(one & other) / (one.sum() + other.sum()))


def _settled(
    brain: np.ndarray,
    affine: np.ndarray,
    settings: Preparation,
    template: Template,
    target: Any,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Align a brain, and what came of it once more; the second result counts if it moved far.

    Returns:
        The alignment [4, 4], and by how much another one would move it, [4, 4], which is nearly the
        identity if the alignment is right; None without one.
    """
    move = align(brain, affine, template, settings.align)
    if settings.align == "none":
        return move, None

    def again() -> np.ndarray:
        placed = _placed(brain, affine, move, target)
        return align(placed, grid_affine(template, settings.spacing_mm), template, "rigid")

    residual = again()
    if distance_mm(residual, np.eye(4), template) > SETTLED_MM:
        move = residual @ move
        residual = again()
    return move, residual


def _placed(values: np.ndarray, affine: np.ndarray, move: np.ndarray, target: Any) -> np.ndarray:
    """Return values [X, Y, Z] at `affine` on the voxels of a grid, an image, moved there."""
    return from_itk(resample(to_itk(values.astype(np.float32), affine), target, move))


def to_scan(values: np.ndarray, affine: np.ndarray, to_template: np.ndarray, volume: Volume) -> Any:
    """Bring values on the grid of prepared scans back onto a scan's own voxels.

    Args:
        values: [X, Y, Z] on the grid at `affine` [4, 4].
        affine: see `Prepared`.
        to_template: see `Prepared`.
        volume: the scan.

    Returns:
        [X, Y, Z] float32 along R, A and S of the scan, by linear interpolation, 0 beyond the grid.
    """
    own = to_itk(np.zeros(volume.data.shape, np.float32), volume.affine)
    image = to_itk(values.astype(np.float32), affine)
    return images.from_itk(resample(image, own, np.linalg.inv(to_template)))
