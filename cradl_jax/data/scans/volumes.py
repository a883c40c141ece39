"""Read a brain-extracted volume or an anomaly mask, and say what is wrong with it."""

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel import imageglobals
from nibabel.affines import apply_affine
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import SerializableImage
from nibabel.openers import Opener
from nibabel.spatialimages import SpatialImage

from cradl_jax.data.scans.headers import Origin, origin_of
from cradl_jax.errors import InputError, cause
from cradl_jax.storage.files import replacing
from cradl_jax.storage.reading import check_file, open_file

ENDINGS = (".nii.gz", ".nii", ".mgz", ".hdr", ".img")
PACKED = (".gz", ".mgz")
FAST = 1  # level of gzip
HIGHEST_RATIO = 1032  # at which deflate packs
MOST_TRAILING = 1 << 24  # bytes after the voxels, such as FreeSurfer's tags
LEAST_BACKGROUND = 0.2
"""A smaller share of zero voxels is no brain-extracted scan: a ball leaves 0.48 of its box."""
LEAST_BRAIN = 1e-3
"""A smaller share of voxels other than zero is no brain: a slab of one in half a meter has more."""
LARGEST_BRAIN_LITERS = 2.8
"""More is a whole head: a brain with its fluid has about 2 liters, a phantom's up to 2.6."""
RESIDUE = 1e-3
"""Of a bright voxel's distance from the background: what lies nearer to it belongs to it."""
RINGING = 0.01
"""Of a bright voxel: what splines leave near the brain is below it, no tissue is."""
LEAST_RESIDUE = 0.01
"""A smaller share of voxels that are nearly 0 is dark tissue, not what interpolation left."""
SURE = 0.9
"""Share of the voxels on the volume's twelve edges that a background of one value has."""
WHOLE = 1e-3  # what a label differs at most from a whole number
MAGNITUDES = (1e-30, 1e30)
"""Of the largest intensity; float32 tells lower ones badly apart, and higher ones overflow."""

_reading = ContextVar("reading", default=False)
imageglobals.logger.addFilter(lambda _: not _reading.get())  # one message alone is shown


@dataclass(frozen=True)
class Volume:
    """A volume whose axes point to the patient's right, front and top (RAS), or nearly so."""

    data: np.ndarray
    """[X, Y, Z] float32, exactly 0 outside the brain."""
    affine: np.ndarray
    """[4, 4] voxel indices of `data` to millimeters."""
    spacing_mm: tuple[float, float, float]
    origin: Origin
    """The file that it was read from, and how its voxels lie there."""
    background: float | None = None
    """What the file has for the background where that is not exactly 0."""


def read_volume(path: Path) -> Volume:
    """Read a brain-extracted scan (.nii, .nii.gz, .hdr/.img or .mgz).

    Raises:
        InputError: If the file is missing, damaged or no volume; or if the volume is not 3-D,
            (nearly) empty, constant, not finite, of a header that contradicts itself, or still has
            a skull or a background of more than one value.
    """
    volume, _ = read_stored(path)
    return volume


def read_stored(path: Path) -> tuple[Volume, SpatialImage]:
    """Read a scan as `read_volume` does, together with its voxels as the file stores them."""
    volume, image = _read(path)
    _check_range(path, volume.data)
    volume = _on_zero(volume)
    _check_brain(path, volume)
    return volume, image


def read_head(path: Path) -> Volume:
    """Read a scan as `read_volume` does, whose skull may be on.

    Raises:
        InputError: If the file is missing, damaged or no volume; or if the volume is not 3-D,
            constant, not finite, or of a header that contradicts itself.
    """
    volume, _ = _read(path)
    _check_range(path, volume.data)
    return volume


def read_mask(path: Path, image: Origin) -> np.ndarray:
    """Read an anomaly mask, [X, Y, Z] bool along R, A and S of its image: true from label 1 on.

    Raises:
        InputError: If the file is missing, damaged, on another grid, or holds other than labels:
            negative numbers, fractions, NaN or infinity.
    """
    data = read_like(path, image, "mask")
    least, uneven = data.min(), np.abs(data - np.rint(data)).max()
    if least < -WHOLE or uneven > WHOLE:
        found = f"{least:g}" if least < -WHOLE else "fractions"
        raise InputError(
            f"{path}: expected whole numbers from 0 (0 is healthy), found {found}; write the "
            "labels again, and resample masks by nearest neighbor"
        )
    return data > WHOLE


def read_like(path: Path, image: Origin, what: str) -> np.ndarray:
    """Read what lies on the grid of `image`, a mask or a map, [X, Y, Z] float32.

    Its axes may be stored in another order or direction.

    Raises:
        InputError: If the file is missing, damaged, not finite or on another grid.
    """
    volume, _ = _read(path, image)
    if volume.data.shape != image.ras_shape:
        raise InputError(
            f"{path}: expected a {what} of its image's shape {image.ras_shape} (along R, A, S), "
            f"found {volume.data.shape}; resample the {what} to the image"
        )
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(volume.data.shape) - 1)
    here, there = (apply_affine(affine, corners) for affine in (volume.affine, image.ras_affine))
    distance = np.linalg.norm(here - there, axis=1).max()
    if distance > 0.1 * min(image.spacing_mm):
        raise InputError(
            f"{path}: expected the affine of its image, found one that moves a corner by "
            f"{distance:.3g} mm; resample the {what} to the image, or copy the image's affine if "
            "only the header is wrong"
        )
    return volume.data


def write_image(path: Path, image: nib.Nifti1Image) -> None:
    """Write a NIfTI image, its values as they are, to a name that ends in .nii.gz."""
    with replacing(path) as aside, Opener(str(aside), "wb", compresslevel=FAST) as file:
        image.to_stream(file.fobj)


def read_origin(path: Path) -> Origin:
    """Read how the voxels of a file lie, from its header alone.

    Raises:
        InputError: If the file is missing, damaged or no 3-D volume.
    """
    with _opened(path) as (image, file):
        return origin_of(path, image, file)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[SpatialImage, BinaryIO]]:
    """Yield the image, its header read and its voxels on disk, and the unpacked file of its header.

    Raises:
        InputError: If the file is missing, damaged or no volume.
    """
    name = path.name.lower()
    if not name.endswith(ENDINGS):
        raise InputError(
            f"{path}: expected a volume (.nii, .nii.gz, .hdr/.img or .mgz), found the ending "
            f"{path.suffix!r}; convert it to NIfTI"
        )
    pair = name.endswith((".hdr", ".img"))
    for half in (path, path.with_suffix(".hdr"), path.with_suffix(".img")) if pair else ():
        check_file(half, "a volume")
    token = _reading.set(True)
    try:
        with (
            open_file(path.with_suffix(".hdr") if pair else path, "a volume") as file,
            np.errstate(all="ignore"),
            gzip.open(file) if path.suffix.lower() in PACKED else file as unpacked,
        ):
            image = nib.load(path)
            if not isinstance(image, SpatialImage):
                raise InputError(
                    f"{path}: expected a volume, found a {type(image).__name__}; convert it to "
                    "NIfTI"
                )
            yield image, cast(BinaryIO, unpacked)
    except InputError:
        raise
    except Exception as fault:  # nibabel raises errors of many kinds, some of its own
        raise InputError(
            f"{path}: expected a complete volume (.nii, .nii.gz, .hdr/.img or .mgz), found a file "
            f"that cannot be read ({cause(fault)}); copy or convert it again"
        ) from fault
    finally:
        _reading.reset(token)


def _read(path: Path, like: Origin | None = None) -> tuple[Volume, SpatialImage]:
    """Read any finite 3-D volume in the closest RAS orientation, and the image as it is stored.

    With `like` its axes are those that are closest to the axes of that volume, which stay as they
    were chosen there: at 45 degrees two axes of a patient are equally close, a rounding decides.
    """
    with _opened(path) as (image, file):
        origin = origin_of(path, image, file)
        if like is not None:
            to_like = np.linalg.inv(like.ras_affine) @ origin.affine
            origin = replace(origin, orientation=nib.io_orientation(to_like))
        image = _complete(path, image, file)
        data = image.get_fdata(dtype=np.float32, caching="unchanged")
    not_finite = data.size - np.count_nonzero(np.isfinite(data))
    if not_finite:
        raise InputError(
            f"{path}: expected finite voxels, found {not_finite} of {data.size} NaN or infinite; "
            "set them to 0 or export the scan again"
        )
    data = nib.apply_orientation(data.reshape(data.shape[:3]), origin.orientation)
    return Volume(data, origin.ras_affine, origin.spacing_mm, origin), image


def _complete(path: Path, image: SpatialImage, file: BinaryIO) -> SpatialImage:
    """Return the image of a single file, in memory; one of two files as it is.

    Unlike nibabel this verifies gzip's checksum, and the length before memory is taken for it; and
    a small file that unpacks to much more than its header promises is not unpacked.
    """
    if not isinstance(image, SerializableImage):
        return image
    proxy, packed = cast(ArrayProxy, image.dataobj), path.suffix.lower() in PACKED
    expected = proxy.offset + math.prod(map(int, proxy.shape)) * proxy.dtype.itemsize
    most = path.stat().st_size * (HIGHEST_RATIO if packed else 1)
    content = b""
    if expected <= most:
        file.seek(0)
        content = file.read(expected + MOST_TRAILING + 1)
    if not expected <= len(content) <= expected + MOST_TRAILING:
        found = "more" if len(content) > expected else "less"
        raise EOFError(f"the header promises {expected} bytes, the file holds {found}")
    return type(image).from_bytes(content)


def _on_zero(volume: Volume) -> Volume:
    """Return the volume with a background of exactly 0, if it has (nearly) one value on its edges.

    Intensities become differences from that value. Slices are the same: they are normalized.
    """
    data = volume.data
    edges = np.concatenate(
        [np.moveaxis(data, axis, 0)[:, (0, 0, -1, -1), (0, -1, 0, -1)].ravel() for axis in range(3)]
    )
    level = np.sort(edges)[edges.size // 2]
    distance = np.abs(data - level)
    bright = np.percentile(distance, 99)
    near = RESIDUE * bright
    if np.mean(np.abs(edges - level) <= near) < SURE:
        return volume
    if abs(level) > near:
        data = np.where(distance <= near, 0, data - level)
        return replace(volume, data=data, background=float(level))
    if np.count_nonzero(data[np.abs(data) <= near]) < LEAST_RESIDUE * data.size:
        return volume
    return replace(volume, data=np.where(data <= RINGING * bright, 0, data), background=0.0)


def _check_range(path: Path, data: np.ndarray) -> None:
    """Raise an `InputError` unless the voxels differ and float32 tells them apart."""
    low, high = data.min(), data.max()
    if low == high:
        kind = "empty: every voxel is 0" if low == 0 else f"constant: every voxel is {low:g}"
        raise InputError(f"{path}: expected a scan, found one that is {kind}; export it again")
    largest = max(abs(low), abs(high))
    if not MAGNITUDES[0] <= largest <= MAGNITUDES[1]:
        raise InputError(
            f"{path}: expected intensities of a magnitude between {MAGNITUDES[0]:g} and "
            f"{MAGNITUDES[1]:g}, found up to {largest:g}; repair the header's scl_slope, or scale "
            "the scan"
        )


def _check_brain(path: Path, volume: Volume) -> None:
    """Raise an `InputError` unless the voxels are those of a brain on a zero background."""
    data = volume.data
    n_brain = np.count_nonzero(data)
    if n_brain < LEAST_BRAIN * data.size:
        raise InputError(
            f"{path}: expected a brain, found only {n_brain} of {data.size} voxels that are not 0; "
            "export the scan again, or check its brain extraction"
        )
    liters = n_brain * np.prod(volume.spacing_mm) / 1e6
    background = 1 - n_brain / data.size
    if background < LEAST_BACKGROUND or liters > LARGEST_BRAIN_LITERS:
        raise InputError(
            f"{path}: expected a brain-extracted scan (the brain alone, all other voxels 0 or of "
            f"one other value), found {background:.0%} zero voxels and {liters:.2f} liters of "
            "others, so that the skull or a background is still there; extract the brain first, "
            "e.g. by experiments.prepare or HD-BET, or predict the raw scan with --prepare"
        )
    level = data.max() or data.min()
    if np.count_nonzero(data == level) == n_brain:
        raise InputError(
            f"{path}: expected a scan, found a constant one: every voxel is 0 or {level:g}; is "
            "it a mask?"
        )
