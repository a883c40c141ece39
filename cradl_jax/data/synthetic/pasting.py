"""A healthy scan on disk becomes one with a foreign object, everything else staying as it is."""

from pathlib import Path

import jax
import numpy as np
from jax import Array
from nibabel.spatialimages import SpatialImage

from cradl_jax.data.scans import bids
from cradl_jax.data.scans.volumes import read_stored
from cradl_jax.data.slices.native import to_scan_grid
from cradl_jax.data.synthetic.anomalies import paste_object
from cradl_jax.errors import InputError


def write_pasted(key: Array, image: Path, root: Path, subject: str) -> None:
    """Paste a foreign object into a scan; write it and the object's mask into a BIDS tree.

    The object is rendered at the scan's own spacing. Voxel order, affine and all intensities
    outside the mask are those of the source. Integers that the file does not scale keep their
    type, everything else is written as float32. The scan is written last: it says that both files
    are there. `root` is the tree's folder, `subject` the name in it, without `sub-`.

    Raises:
        InputError: the scan cannot be used, see `read_volume`, or has no room for an object.
    """
    volume, stored = read_stored(image)
    spacing_mm = tuple(round(step, 3) for step in volume.spacing_mm)  # compiled once for a grid
    pasted, mask = jax.device_get(paste_object(key, volume.data, volume.data != 0, spacing_mm))
    if not mask.any():
        raise InputError(
            f"{image}: expected a brain with room for a foreign object, found none deep enough "
            f"with voxels of {spacing_mm} mm; check the scan and its spacing"
        )
    voxels, affine = _native_voxels(stored), volume.origin.affine
    pasted, mask = (
        to_scan_grid(array, volume.origin).reshape(voxels.shape) for array in (pasted, mask)
    )
    voxels[mask] = _as_type(pasted[mask], voxels.dtype, volume.background or 0)
    bids.write_volume(bids.mask_path(root, subject), mask.astype(np.uint8), affine)
    bids.write_volume(bids.scan_path(root, subject), voxels, affine)


def _native_voxels(image: SpatialImage) -> np.ndarray:
    """Return the voxels of an image in the file's own order, [X, Y, Z], to be written to."""
    voxels = np.asanyarray(image.dataobj)
    whole = voxels.dtype.kind in "iu" and voxels.dtype.itemsize <= 4
    dtype = voxels.dtype.newbyteorder("=") if whole else np.float32
    return np.array(voxels.reshape(voxels.shape[:3]), dtype)


def _as_type(values: np.ndarray, dtype: np.dtype, background: float) -> np.ndarray:
    """Convert positive differences from a file's background to its type.

    None becomes the background, which would be a hole in the brain.
    """
    if dtype.kind == "f":
        return values + background
    lowest, highest = np.floor(background) + 1, np.iinfo(dtype).max
    return np.clip(np.rint(values + background), lowest, highest).astype(dtype)
