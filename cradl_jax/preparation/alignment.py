"""Align a brain with the template by mutual information, so that brains stand alike."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cradl_jax.data.scans.preparation import Align
from cradl_jax.errors import InputError
from cradl_jax.preparation.images import itk, matrix, rotation, to_itk
from cradl_jax.preparation.template import Template, middle_of

SPACING_MM = 2  # of the voxels that are compared, means of the template's and of a finer scan's
STARTS_DEGREES = [(0, 0, 0), *(tuple(row) for row in 15 * np.r_[np.eye(3), -np.eye(3)])]
BINS = 32  # of a histogram of brightnesses


class Level(NamedTuple):
    """How finely the search looks: shrunk by so much, smoothed, and its first and last step."""

    shrink: int
    smoothing_mm: float
    first_mm: float
    last_mm: float


COARSE, FINE, FINEST = Level(4, 6, 4, 0.05), Level(2, 4, 1, 0.01), Level(1, 2, 0.25, 0.01)
APART_VOXELS = 10  # of the template, where distances are taken
MOST_STEPS, RELAXATION = 150, 0.7  # by which steps shrink where the slope turns


def align(brain: np.ndarray, affine: np.ndarray, template: Template, kind: Align) -> np.ndarray:
    """Find the matrix [4, 4] that moves a scan's RAS millimeters onto the template's.

    The centers of mass meet, then the head is turned to each side, and the best start goes on: the
    search at 8 mm from each, those at 4 and at 2 mm from the best. The latter have twelve
    parameters, for among six alone a brain of another shape than the template's finds several
    optima; what turns and shifts is kept. All voxels are compared, for a sample of them has other
    optima on every grid.

    Args:
        brain: [X, Y, Z] brightness, 0 outside the brain.
        affine: [4, 4] its voxel indices to millimeters.
        template: Where to.
        kind: What may change.

    Raises:
        InputError: If no voxels overlap, or the search diverges.
    """
    if kind == "none":
        shift = np.eye(4)
        shift[:3, 3] = template.middle_mm - middle_of(brain != 0, affine)
        return shift
    sitk = itk()
    fixed = sitk.BinShrink(to_itk(template.brightness, template.affine), [SPACING_MM] * 3)
    near = to_itk(template.around.astype(np.uint8), template.affine)
    moving = to_itk(brain.astype(np.float32), affine)
    steps = [max(1, int(SPACING_MM / spacing)) for spacing in moving.GetSpacing()]
    moving = sitk.BinShrink(moving, steps)
    start = sitk.CenteredTransformInitializer(
        *(fixed, moving, sitk.Euler3DTransform()),
        sitk.CenteredTransformInitializerFilter.MOMENTS,
    )
    try:
        tried = []
        for degrees in STARTS_DEGREES:
            turned = sitk.Euler3DTransform(start)
            turned.SetRotation(*np.deg2rad(degrees).tolist())
            tried.append(_register(fixed, moving, turned, near, [COARSE]))
        _, best = min(tried, key=lambda one: one[0])
        wider = sitk.AffineTransform(3)
        wider.SetMatrix(best.GetMatrix())
        wider.SetTranslation(best.GetTranslation())
        wider.SetCenter(best.GetCenter())
        _, found = _register(fixed, moving, wider, near, [FINE, FINEST])
    except RuntimeError as fault:
        raise InputError(
            "alignment: expected a brain that overlaps the template, found one that the search "
            "leaves; look at the scan and its brain mask, or prepare it with --align=none"
        ) from fault
    move = np.linalg.inv(matrix(found))
    return move if kind == "affine" else rigid_part(move, template)


def rigid_part(move: np.ndarray, template: Template) -> np.ndarray:
    """Return what turns and shifts of a matrix [4, 4], which keeps the template's middle."""
    result = np.eye(4)
    result[:3, :3] = rotation(move[:3, :3])
    there = np.linalg.inv(move) @ [*template.middle_mm, 1]
    result[:3, 3] = template.middle_mm - result[:3, :3] @ there[:3]
    return result


def _register(
    fixed: Any, moving: Any, found: Any, near: Any, levels: Sequence[Level]
) -> tuple[float, Any]:
    """Improve a transform; return its negative mutual information over `near`, and itself."""
    for level in levels:
        score = _improve(fixed, moving, found, near, level)
    return score, found


def _improve(fixed: Any, moving: Any, found: Any, near: Any, level: Level) -> float:
    """Improve a transform in place by the search on one level, and return its score."""
    method = itk().ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetMetricFixedMask(near)
    method.SetInterpolator(itk().sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        level.first_mm, level.last_mm, MOST_STEPS, relaxationFactor=RELAXATION
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([level.shrink])
    method.SetSmoothingSigmasPerLevel([level.smoothing_mm])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(found, inPlace=True)
    method.Execute(fixed, moving)
    return method.GetMetricValue()


def turn_degrees(move: np.ndarray) -> float:
    """Return the angle in degrees by which a matrix [4, 4] turns, its scaling left aside."""
    cosine = (np.trace(rotation(move[:3, :3])) - 1) / 2
    return float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))


def distance_mm(one: np.ndarray, other: np.ndarray, template: Template) -> float:
    """Return how far apart two alignments put the same places of the brain, the mean in mm."""
    where = APART_VOXELS * np.argwhere(template.brain[(slice(None, None, APART_VOXELS),) * 3])
    places = np.c_[where, np.ones(len(where))] @ template.affine.T
    apart = places @ (one @ np.linalg.inv(other) - np.eye(4)).T
    return float(np.linalg.norm(apart[:, :3], axis=1).mean())
