"""Slice maps back in the space of their scan, and a NIfTI file that any viewer lays over it."""

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from threadpoolctl import threadpool_limits

from cradl_jax.data.scans.headers import Origin
from cradl_jax.data.scans.volumes import write_image
from cradl_jax.data.slices.preprocess import SliceGeometry, slice_layers
from cradl_jax.errors import InputError

LAYERS = 32  # of the volume filled at once: bounds the memory for what lies between
PLACE = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)
"""Fields of a NIfTI header that say where the voxels lie; no others are taken from the scan."""


def to_volume(
    maps: np.ndarray, geometry: SliceGeometry, brain: np.ndarray | None = None
) -> np.ndarray:
    """Put slice maps on the voxels of their volume: the inverse of `preprocess.slice_volume`.

    Linear interpolation between the centers of pixels and, where the stack was resampled, of
    slices; where voxels are larger than pixels, a weighted mean over about two voxels. Values keep
    their unit. A voxel is 0 if its center lies beyond the slices, or outside the `brain`.

    Args:
        maps: [n, size, size], a finite map for each slice of `geometry`, from the lowest.
        geometry: How the volume was sliced.
        brain: [X, Y, Z] bool; None is everywhere.

    Returns:
        [X, Y, Z] float32 along R, A and S.

    Raises:
        InputError: If the maps or the brain are not those of `geometry`, or a value is not finite.
    """
    shape = (geometry.n_slices, geometry.size, geometry.size)
    if maps.shape != shape:
        raise InputError(
            f"maps: expected a map of {geometry.size}x{geometry.size} pixels for each of "
            f"{geometry.n_slices} slices, found shape {maps.shape}; use the geometry that the scan "
            "was sliced with"
        )
    if brain is not None and brain.shape != geometry.shape:
        raise InputError(
            f"brain: expected a mask of shape {geometry.shape} (along R, A, S), found "
            f"{brain.shape}; use that of the scan"
        )
    if not np.isfinite(maps).all():
        raise InputError(
            "maps: expected finite values, found NaN or infinity; check the scores of this scan"
        )
    columns, rows, layers = _interpolation(geometry)
    volume = np.empty(geometry.shape[::-1], np.float32)
    flat = np.asarray(maps, np.float32).reshape(geometry.n_slices, -1)
    with threadpool_limits(1, user_api="blas"):  # its threads only wait, for products so small
        for start in range(0, len(volume), LAYERS):
            block = slice(start, start + LAYERS)
            slices = (layers[block] @ flat).reshape(-1, geometry.size, geometry.size)
            np.matmul(rows @ slices, columns.T, out=volume[block])
    if brain is not None:
        volume *= brain.T
    return volume.T


def slice_centers_mm(geometry: SliceGeometry, affine: np.ndarray) -> np.ndarray:
    """Return [n, 3]: the slices' centers in the space of `affine`, from R, A, S indices."""
    middle = np.divide(geometry.center_mm[:2], geometry.spacing_mm[:2]) - 0.5
    points = np.empty((geometry.n_slices, 3))
    points[:, :2], points[:, 2] = middle, slice_layers(geometry)
    return apply_affine(affine, points + geometry.first)


def to_scan_grid(volume: np.ndarray, origin: Origin) -> np.ndarray:
    """Return a volume [X, Y, Z] along R, A and S in the shape and order of axes of a scan's file.

    Raises:
        InputError: If the scan has other voxels than `volume`.
    """
    if volume.shape != origin.ras_shape:
        raise InputError(
            f"{origin.path}: expected {volume.shape} voxels (along R, A, S) as in the map, found "
            f"{origin.ras_shape}; give the scan that the map was made from"
        )
    upright = nib.orientations.axcodes2ornt("RAS")
    back = nib.orientations.ornt_transform(upright, origin.orientation)
    return nib.apply_orientation(volume, back).reshape(origin.shape)


def write_map(path: Path, volume: np.ndarray, origin: Origin) -> None:
    """Write a map or mask with the shape, affine, units and qform and sform codes of its scan.

    The volume is [X, Y, Z] along R, A and S; its values are stored as they are, as float32 (bool as
    uint8, whole numbers as int32), without scaling. A scan that is not NIfTI (.mgz, or Analyze)
    lends its affine to qform and sform, with the code for scanner coordinates. Folders of `path`
    are made.

    Raises:
        InputError: If `path` has another ending, or if the scan has other voxels than `volume`.
    """
    if not path.name.endswith(".nii.gz"):
        raise InputError(f"{path}: expected a name that ends in .nii.gz; rename the output")
    kind = {"b": np.uint8, "i": np.int32}.get(volume.dtype.kind, np.float32)
    data = to_scan_grid(volume, origin).astype(kind, copy=False)
    write_image(path, _image_like(data, origin))


def _image_like(data: np.ndarray, origin: Origin) -> nib.Nifti1Image:
    """Return a NIfTI image that lies where the scan of `origin` does."""
    scan = origin.header
    kind = nib.Nifti2Image if isinstance(scan, nib.Nifti2Header) else nib.Nifti1Image
    header = kind.header_class()
    header.set_data_shape(data.shape)
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(1, 0)
    if isinstance(scan, nib.Nifti1Header):
        for field in PLACE:
            header[field] = scan[field]
    else:
        header.set_xyzt_units("mm")
        header.set_qform(origin.affine, "scanner")
        header.set_sform(origin.affine, "scanner")
    return kind(data, origin.affine, header)


def _interpolation(geometry: SliceGeometry) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights [X, size], [Y, size], [Z, n] of columns, rows and slices in the voxels."""
    columns, rows, layers = (
        _weights((((np.arange(voxels) - first + 0.5) * spacing) - center) / step, n, spacing / step)
        for voxels, first, spacing, center, n, step in zip(
            *(geometry.shape, geometry.first, geometry.spacing_mm, geometry.center_mm),
            (geometry.size, geometry.size, geometry.n_slices),
            (geometry.pixel_mm, geometry.pixel_mm, geometry.slice_mm),
            strict=True,
        )
    )
    columns, rows, layers = map(np.ascontiguousarray, (columns[:, ::-1], rows[:, ::-1], layers))
    return columns, rows, layers


def _weights(position: np.ndarray, n_in: int, step: float) -> np.ndarray:
    """Return [n_out, n_in] float32: weights of `n_in` samples in positions [n_out] `step` apart.

    Positions are in distances of samples, from the middle of these. A row sums to 1, or to 0 if its
    position lies beyond the cells around the samples.
    """
    position = position + (n_in - 1) / 2
    distance = np.abs(position[:, None] - np.arange(n_in))
    weights = np.clip(1 - distance / max(1, step), 0, None)
    weights[weights < 1e-6] = 0  # rounding: a voxel at a sample's center takes that sample alone
    weights[distance.min(1) > 0.5 + 1e-6] = 0
    return (weights / np.maximum(weights.sum(1, keepdims=True), 1e-6)).astype(np.float32)
