"""What the header of a volume says, without contradiction, of where its voxels lie."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, TypeGuard, cast

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.arrayproxy import ArrayProxy
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.spatialimages import SpatialHeader, SpatialImage

from cradl_jax.errors import InputError

MOST_VOXELS = 1 << 30  # a head at 0.2 mm has fewer
TOLERANCE = 0.02  # of voxel sizes that a header states twice
LEAST_COSINE = 0.5  # between an axis by the qform and by the sform: 60 degrees
LEAST_VOLUME = 0.1  # of a voxel with edges of length 1; a cube has 1, a flat one 0
MILLIMETERS = (0, 2)  # codes of xyzt_units; 0 says nothing


@dataclass(frozen=True)
class Origin:
    """The file of a volume, and how its voxels lie in the file and in space."""

    path: Path
    shape: tuple[int, ...]
    """Voxels along the file's own axes; axes after the third have length 1."""
    affine: np.ndarray
    """[4, 4] voxel indices of the file to millimeters."""
    orientation: np.ndarray
    """[3, 2] for `nibabel.apply_orientation`, from the file's axes to R, A and S or nearly so."""
    header: SpatialHeader
    states_orientation: bool
    """Whether the file says how the head lies: by a qform or sform code and an affine of its own.

    An identity affine is what conversion tools write when they do not know; Analyze cannot say."""

    @property
    def axes(self) -> str:
        """Where the file's axes point to, or nearly so, such as LPS."""
        return "".join(nib.orientations.ornt2axcodes(self.orientation))

    @cached_property
    def ras_shape(self) -> tuple[int, int, int]:
        """Voxels along R, A and S."""
        x, y, z = np.argsort(self.orientation[:, 0])
        return self.shape[x], self.shape[y], self.shape[z]

    @cached_property
    def ras_affine(self) -> np.ndarray:
        """[4, 4]: voxel indices along R, A and S to millimeters."""
        return self.affine @ nib.orientations.inv_ornt_aff(self.orientation, self.shape[:3])

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighboring voxels along R, A and S."""
        x, y, z = map(float, voxel_sizes(self.ras_affine))
        return x, y, z


def origin_of(path: Path, image: SpatialImage, file: BinaryIO) -> Origin:
    """Return the origin of the image at `path`, whose voxels may still be on disk.

    `file` is the unpacked file that holds its header, at its beginning.

    Raises:
        InputError: If it is no 3-D volume of real numbers placed in space.
    """
    shape = tuple(map(int, image.shape))  # numpy's integers overflow
    if not shape or min(shape) < 1:
        raise InputError(
            f"{path}: expected a 3-D volume, found an empty one of shape {shape}; export it again"
        )
    if len(shape) < 3 or 1 in shape[:3] or any(n > 1 for n in shape[3:]):
        raise InputError(
            f"{path}: expected a 3-D volume, found shape {shape}; give one 3-D file a scan (split "
            "4-D files into their volumes, stack 2-D slices)"
        )
    if math.prod(shape) > MOST_VOXELS:
        raise InputError(
            f"{path}: expected at most {MOST_VOXELS} voxels, found shape {shape}; repair the "
            "header, or resample the scan"
        )
    _check_offset(path, image)
    if image.get_data_dtype().kind not in "iuf":
        raise InputError(
            f"{path}: expected one real number a voxel, found {image.get_data_dtype()}; convert "
            "it to a gray-scale magnitude image"
        )
    affine, header = _placement(path, image, file), image.header
    orientation = nib.io_orientation(affine)
    return Origin(path, shape, affine, orientation, header, _states_orientation(header, affine))


def _check_offset(path: Path, image: SpatialImage) -> None:
    """Raise an InputError if the voxels of a single file begin within its header."""
    if isinstance(image, nib.Nifti1Image):  # also of NIfTI-2, not of a .hdr/.img pair
        least, offset = image.header.single_vox_offset, cast(ArrayProxy, image.dataobj).offset
        if offset < least:
            raise InputError(
                f"{path}: expected voxels from byte {least} on (vox_offset), found {offset}, which "
                "is within the header; repair the header, or convert the scan again"
            )


def _states_orientation(header: SpatialHeader, affine: np.ndarray) -> bool:
    if isinstance(header, nib.Nifti1Header):
        stated = max(_form_codes(header)) > 0
    else:
        stated = isinstance(header, MGHHeader) and int(header["goodRASFlag"]) > 0
    return stated and not np.allclose(affine, np.eye(4))


def _form_codes(header: nib.Nifti1Header) -> tuple[int, int]:
    return int(header["qform_code"]), int(header["sform_code"])


def _placement(path: Path, image: SpatialImage, file: BinaryIO) -> np.ndarray:
    """Return the affine, or raise an InputError unless it places the voxels in space, in mm.

    The sform comes first, as in nibabel. What else the header states must not contradict it: the
    voxel sizes (pixdim), and where both have a code, the axes by the qform.
    """
    affine, header = image.affine, image.header
    if not _places(affine):
        raise InputError(
            f"{path}: expected an affine that places the voxels in space, found one that does not "
            f"({np.array(affine).tolist()}); repair the header or convert the scan again"
        )
    if isinstance(header, nib.AnalyzeHeader):
        _check_spacing(path, affine, _stated_spacing(header, file))
    if isinstance(header, nib.Nifti1Header):
        if int(header["xyzt_units"]) & 7 not in MILLIMETERS:
            raise InputError(
                f"{path}: expected millimeters, found a header in "
                f"{header.get_xyzt_units()[0]}s; repair its unit, or convert the scan again"
            )
        if min(_form_codes(header)) > 0:
            _check_axes(path, header)
    return affine


def _places(affine: np.ndarray | None) -> TypeGuard[np.ndarray]:
    if affine is None or not np.isfinite(affine).all():
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(lengths.all()) and abs(np.linalg.det(affine[:3, :3] / lengths)) > LEAST_VOLUME


def _stated_spacing(header: nib.AnalyzeHeader, file: BinaryIO) -> np.ndarray:
    """Read pixdim [3] as it stands in the file; nibabel mends it where it is 0 or negative."""
    kind = type(header)
    block = file.read(kind.template_dtype.itemsize)
    return kind(block, header.endianness, check=False)["pixdim"][1:4].astype(float)


def _check_spacing(path: Path, affine: np.ndarray, stated: np.ndarray) -> None:
    sizes = voxel_sizes(affine)
    if not (np.isfinite(stated) & (stated > 0)).all():
        raise InputError(
            f"{path}: expected voxel sizes above 0 mm, found pixdim {stated.tolist()}; repair the "
            "header or convert the scan again"
        )
    if not np.allclose(sizes, stated, rtol=TOLERANCE, atol=0):
        raise InputError(
            f"{path}: expected one voxel size, found {np.round(sizes, 4).tolist()} mm by the "
            f"affine and {np.round(stated, 4).tolist()} mm by pixdim; repair the header or convert "
            "the scan again"
        )


def _check_axes(path: Path, header: nib.Nifti1Header) -> None:
    affines = header.get_qform(), header.get_sform()
    by_qform, by_sform = (np.array(affine)[:3, :3] for affine in affines)
    lengths = np.linalg.norm(by_qform, axis=0) * np.linalg.norm(by_sform, axis=0)
    if not ((by_qform * by_sform).sum(0) >= LEAST_COSINE * lengths).all():
        axes = ["".join(nib.aff2axcodes(affine)) for affine in affines]
        raise InputError(
            f"{path}: expected one orientation, found axes to {axes[0]} by the qform and to "
            f"{axes[1]} by the sform; remove the wrong one, or convert the scan again"
        )
