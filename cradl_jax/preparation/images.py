"""Arrays along R, A and S as images of SimpleITK, which counts millimeters along L, P and S."""

from typing import Any

import numpy as np

from cradl_jax.errors import InputError

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
DIGITS = 15
"""After the point of what is given to ITK, whose inverse may fail where products underflow."""
SKEW = 1e-3  # cosine between axes from which on a grid is no grid of right angles


def itk() -> Any:
    """Return the module SimpleITK, each of whose filters takes one core.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import SimpleITK
    except ImportError as fault:
        raise InputError(
            "SimpleITK: expected it for bias correction and alignment, found none; install what "
            'preparation needs with pip install "cradl_jax[prepare]", or SimpleITK alone'
        ) from fault
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    SimpleITK.ProcessObject.GlobalWarningDisplayOff()
    return SimpleITK


def to_itk(data: np.ndarray, affine: np.ndarray) -> Any:
    """Return an image of `data` [X, Y, Z] at `affine` [4, 4], voxel indices to RAS millimeters.

    Raises:
        InputError: If the axes of the grid are not perpendicular.
    """
    placed = TO_LPS @ affine
    spacing = np.linalg.norm(placed[:3, :3], axis=0)
    direction = placed[:3, :3] / spacing
    skew = np.abs(direction.T @ direction - np.eye(3)).max()
    if skew > SKEW:
        raise InputError(
            f"expected perpendicular axes of voxels, found some with a cosine of {skew:.2g}; "
            "resample the scan, e.g. with nilearn.image.resample_img"
        )
    image = itk().GetImageFromArray(np.ascontiguousarray(data.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(placed[:3, 3].tolist())
    image.SetDirection(rotation(direction).round(DIGITS).ravel().tolist())
    return image


def rotation(matrix: np.ndarray) -> np.ndarray:
    """Return the orthogonal matrix [3, 3] that is closest to a matrix [3, 3]."""
    left, _, right = np.linalg.svd(matrix)
    return left @ right


def from_itk(image: Any) -> np.ndarray:
    """Return an image's voxels [X, Y, Z]."""
    return itk().GetArrayFromImage(image).T


def resample(image: Any, grid: Any, to_grid: np.ndarray) -> Any:
    """Return `image` on the voxels of `grid`; `to_grid` [4, 4] moves its RAS millimeters there."""
    sitk = itk()
    return sitk.Resample(image, grid, transform(np.linalg.inv(to_grid)), sitk.sitkLinear, 0.0)


def transform(matrix: np.ndarray) -> Any:
    """Return a matrix [4, 4] on RAS millimeters as a transform of SimpleITK."""
    placed = TO_LPS @ matrix @ TO_LPS
    affine = itk().AffineTransform(3)
    affine.SetMatrix(placed[:3, :3].round(DIGITS).ravel().tolist())
    affine.SetTranslation(placed[:3, 3].tolist())
    return affine


def matrix(placed: Any) -> np.ndarray:
    """Return a linear transform of SimpleITK as a matrix [4, 4] on RAS millimeters."""
    result = np.eye(4)
    result[:3, :3] = np.reshape(placed.GetMatrix(), (3, 3))
    center = np.array(placed.GetCenter())
    result[:3, 3] = center + placed.GetTranslation() - result[:3, :3] @ center
    return TO_LPS @ result @ TO_LPS
