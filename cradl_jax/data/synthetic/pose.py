"""Scans that stand otherwise than the training scans: turned and shifted."""

import numpy as np
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

AXIS = np.ones(3) / np.sqrt(3)  # turns about it and shifts along it tilt, roll and pan alike


def moved(
    volume: np.ndarray, spacing_mm: tuple[float, float, float], degrees: float, shift_mm: float
) -> np.ndarray:
    """Return a volume [X, Y, Z], turned about its middle and shifted along the same diagonal axis.

    Values are interpolated linearly, and a boolean volume by its nearest voxel. What was 0 is 0
    again: the background of a brain-extracted scan stays apart from the brain. What leaves the
    volume is lost.
    """
    spacing = np.asarray(spacing_mm)
    turn = Rotation.from_rotvec(np.radians(degrees) * AXIS).as_matrix()
    middle = (np.asarray(volume.shape) - 1) / 2
    back = turn.T * spacing / spacing[:, None]  # from new voxels to old ones, in voxels
    offset = middle - back @ middle - (turn.T @ AXIS) * shift_mm / spacing

    def resampled(values: np.ndarray, order: int) -> np.ndarray:
        return affine_transform(values, back, offset, order=order)

    inside = resampled((volume != 0).astype(np.uint8), order=0) > 0
    if volume.dtype == bool:
        return inside
    return np.where(inside, resampled(volume, order=1), 0).astype(volume.dtype)
