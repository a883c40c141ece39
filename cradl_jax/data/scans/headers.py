"""Does the header of a volume say, without contradiction, where its voxels lie?"""

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from cradl_jax.errors import InputError

TOLERANCE = 0.02  # of voxel sizes that a header states twice
LEAST_COSINE = 0.5  # between an axis by the qform and by the sform: 60 degrees
LEAST_VOLUME = 0.1  # of a voxel with edges of length 1; a cube has 1, a flat one 0
MILLIMETERS = (0, 2)  # codes of xyzt_units; 0 says nothing


def check_placement(path: Path, image: SpatialImage) -> None:
    """Raise an InputError unless the header places the voxels in space, in millimeters.

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
        _check_spacing(path, affine, _stated_spacing(image))
    if isinstance(header, nib.Nifti1Header):
        if header["xyzt_units"] & 7 not in MILLIMETERS:
            raise InputError(
                f"{path}: expected millimeters, found a header in "
                f"{header.get_xyzt_units()[0]}s; repair its unit, or convert the scan again"
            )
        if header["qform_code"] > 0 and header["sform_code"] > 0:
            _check_axes(path, header)


def _places(affine: np.ndarray | None) -> bool:
    if affine is None or not np.isfinite(affine).all():
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(lengths.all()) and abs(np.linalg.det(affine[:3, :3] / lengths)) > LEAST_VOLUME


def _stated_spacing(image: SpatialImage) -> np.ndarray:
    """[3]: pixdim as it stands in the file; nibabel mends it where it is 0 or negative."""
    kind = type(image.header)
    holder = image.file_map.get("header", image.file_map["image"])
    with holder.get_prepare_fileobj("rb") as file:
        block = file.read(kind.template_dtype.itemsize)
    return kind(block, image.header.endianness, check=False)["pixdim"][1:4].astype(float)


def _check_spacing(path: Path, affine: np.ndarray, stated: np.ndarray) -> None:
    sizes = nib.affines.voxel_sizes(affine)
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
    by_qform, by_sform = header.get_qform()[:3, :3], header.get_sform()[:3, :3]
    lengths = np.linalg.norm(by_qform, axis=0) * np.linalg.norm(by_sform, axis=0)
    if not ((by_qform * by_sform).sum(0) >= LEAST_COSINE * lengths).all():
        axes = [
            "".join(nib.aff2axcodes(found)) for found in (header.get_qform(), header.get_sform())
        ]
        raise InputError(
            f"{path}: expected one orientation, found axes to {axes[0]} by the qform and to "
            f"{axes[1]} by the sform; remove the wrong one, or convert the scan again"
        )
