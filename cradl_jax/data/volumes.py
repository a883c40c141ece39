"""Read one brain-extracted volume or anomaly mask, and say what is wrong with it."""

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError, SerializableImage
from nibabel.spatialimages import HeaderDataError, SpatialImage
from nibabel.wrapstruct import WrapStructError

from cradl_jax.errors import InputError
from cradl_jax.files import replacing

UNREADABLE = (
    *(OSError, EOFError, ValueError, ArithmeticError, MemoryError, TypeError, KeyError),
    *(zlib.error, ImageFileError, HeaderDataError, WrapStructError),
)
"""What nibabel raises on damaged files."""
FAST = 1  # level of gzip
LEAST_BACKGROUND = 0.2
"""A smaller share of zero voxels is no brain-extracted scan: a ball leaves 0.48 of its box."""
LARGEST_BRAIN_LITERS = 2.5
"""More is a whole head: a brain with its fluid has up to about 2 liters."""


@dataclass(frozen=True)
class Volume:
    """A volume whose axes point to the patient's right, front and top (RAS), or nearly so."""

    data: np.ndarray
    """[X, Y, Z] float32, exactly 0 outside the brain."""
    affine: np.ndarray
    """[4, 4] voxel indices of `data` to millimeters."""
    spacing_mm: tuple[float, float, float]


def read_volume(path: Path) -> Volume:
    """Read a brain-extracted scan (.nii, .nii.gz, .hdr/.img or .mgz).

    Raises:
        InputError: If the file is missing, damaged or no volume; or if the volume is not 3-D,
            empty, constant, not finite, or still has a skull or a background other than 0.
    """
    volume = _read(path)
    _check_intensities(path, volume)
    return volume


def read_mask(path: Path, image: Volume) -> np.ndarray:
    """Read an anomaly mask, [X, Y, Z] bool on the grid of `image`: true where the file has > 0.

    Raises:
        InputError: If the file is missing, damaged, not finite, or on another grid.
    """
    mask = _read(path)
    if mask.data.shape != image.data.shape:
        raise InputError(
            f"{path}: expected a mask of its image's shape {image.data.shape} (along R, A, S), "
            f"found {mask.data.shape}; resample the mask to the image"
        )
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(mask.data.shape) - 1)
    here, there = (nib.affines.apply_affine(grid.affine, corners) for grid in (mask, image))
    distance = np.linalg.norm(here - there, axis=1).max()
    if distance > 0.1 * min(image.spacing_mm):
        raise InputError(
            f"{path}: expected the affine of its image, found one that moves a corner by "
            f"{distance:.3g} mm; resample the mask to the image, or copy the image's affine if "
            "only the header is wrong"
        )
    return mask.data > 0


def write_image(path: Path, image: nib.Nifti1Image) -> None:
    """Write a NIfTI image, its values as they are, to a name that ends in .nii.gz."""
    with replacing(path) as aside, nib.openers.Opener(aside, "wb", compresslevel=FAST) as file:
        image.to_stream(file)


def read_grid(path: Path) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Voxels and millimeters per voxel along R, A and S, from the header alone.

    Raises:
        InputError: If the file is missing, damaged or no 3-D volume.
    """
    shape, affine, _ = canonical_grid(path, open_image(path))
    return shape, _spacing(affine)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what nibabel raises about a damaged file into an `InputError`."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except UNREADABLE as fault:
        cause = " ".join(f"{type(fault).__name__}: {fault}".split())
        raise InputError(
            f"{path}: expected a complete volume (.nii, .nii.gz, .hdr/.img or .mgz), found a file "
            f"that cannot be read ({cause}); copy or convert it again"
        ) from fault


def open_image(path: Path) -> SpatialImage:
    """The image with its header read and its voxels still on disk.

    Raises:
        InputError: If the file is missing, damaged or no volume.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a volume, found no such file; check the path")
    with _readable(path):
        image = nib.load(path)
    if not isinstance(image, SpatialImage):
        raise InputError(
            f"{path}: expected a volume, found a {type(image).__name__}; convert it to NIfTI"
        )
    return image


def canonical_grid(
    path: Path, image: SpatialImage
) -> tuple[tuple[int, int, int], np.ndarray, np.ndarray]:
    """Shape and affine [4, 4] of the closest RAS orientation, and nibabel's way to get there.

    `nibabel.apply_orientation` with the last, [3, 2], turns the file's axes to that orientation.

    Raises:
        InputError: If the image at `path` is no 3-D volume of real numbers placed in space.
    """
    shape, affine = image.shape, image.affine
    if 0 in shape or not shape:
        raise InputError(
            f"{path}: expected a 3-D volume, found an empty one of shape {shape}; export it again"
        )
    if len(shape) < 3 or 1 in shape[:3] or any(n > 1 for n in shape[3:]):
        raise InputError(
            f"{path}: expected a 3-D volume, found shape {shape}; give one 3-D file a scan (split "
            "4-D files into their volumes, stack 2-D slices)"
        )
    if image.get_data_dtype().kind not in "iuf":
        raise InputError(
            f"{path}: expected one real number a voxel, found {image.get_data_dtype()}; convert "
            "it to a gray-scale magnitude image"
        )
    if affine is None or not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < 4:
        raise InputError(
            f"{path}: expected an affine that places the voxels in space, found one that does not "
            f"({np.array(affine).tolist()}); repair the header or convert the scan again"
        )
    orientation = nib.io_orientation(affine)
    order = np.argsort(orientation[:, 0])
    affine = affine @ nib.orientations.inv_ornt_aff(orientation, shape[:3])
    return tuple(int(shape[axis]) for axis in order), affine, orientation


def _spacing(affine: np.ndarray) -> tuple[float, float, float]:
    return tuple(float(s) for s in nib.affines.voxel_sizes(affine))


def _read(path: Path) -> Volume:
    """Any finite 3-D volume, in the closest RAS orientation."""
    image = open_image(path)
    _, affine, orientation = canonical_grid(path, image)
    with _readable(path):
        if isinstance(image, SerializableImage):
            image = _complete(path, type(image))
        data = image.get_fdata(dtype=np.float32, caching="unchanged")
    not_finite = data.size - np.count_nonzero(np.isfinite(data))
    if not_finite:
        raise InputError(
            f"{path}: expected finite voxels, found {not_finite} of {data.size} NaN or infinite; "
            "set them to 0 or export the scan again"
        )
    data = np.squeeze(data, axis=tuple(range(3, data.ndim)))
    return Volume(nib.apply_orientation(data, orientation), affine, _spacing(affine))


def _complete(path: Path, kind: type[SerializableImage]) -> SerializableImage:
    """The image of a single file, in memory.

    Unlike nibabel this verifies gzip's checksum, and the length before memory is taken for it.
    """
    content = path.read_bytes()
    if path.suffix in (".gz", ".mgz"):
        content = gzip.decompress(content)
    image = kind.from_bytes(content)
    proxy = image.dataobj
    expected = proxy.offset + math.prod(proxy.shape) * proxy.dtype.itemsize
    if len(content) < expected:
        raise EOFError(f"the header promises {expected} bytes, the file holds {len(content)}")
    return image


def _check_intensities(path: Path, volume: Volume) -> None:
    """Raise an `InputError` unless the voxels are those of a brain on a zero background."""
    data = volume.data
    low, high = data.min(), data.max()
    if low == high:
        kind = "empty: every voxel is 0" if low == 0 else f"constant: every voxel is {low:g}"
        raise InputError(f"{path}: expected a scan, found one that is {kind}; export it again")
    n_brain = np.count_nonzero(data)
    liters = n_brain * np.prod(volume.spacing_mm) / 1e6
    background = 1 - n_brain / data.size
    if background < LEAST_BACKGROUND or liters > LARGEST_BRAIN_LITERS:
        raise InputError(
            f"{path}: expected a brain-extracted scan (the brain alone, all other voxels exactly "
            f"0), found {background:.0%} zero voxels and {liters:.2f} liters of others, so that "
            "the skull or a background is still there; extract the brain first, e.g. with HD-BET "
            "or SynthStrip"
        )
    level = high or low
    if np.count_nonzero(data == level) == n_brain:
        raise InputError(
            f"{path}: expected a scan, found a constant one: every voxel is 0 or {level:g}; is "
            "it a mask?"
        )
