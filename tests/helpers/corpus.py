"""Bad volumes and masks, each made by a function, none stored.

A volume's maker writes into an empty folder and returns the path to give to a command. Beside it
stands what the message must say (a regular expression).
"""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.helpers.scans import brain, head, write

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SHAPE = (20, 24, 16)
Maker = Callable[[Path], Path]
BIG = nib.Nifti1Header(endianness=">")


def plain() -> np.ndarray:
    """Return the brain of every file here, in whole numbers that all formats can hold."""
    return np.rint(brain(SHAPE)).astype(np.int16)


def nifti(data=None, header=nib.Nifti1Header(), **fields) -> bytes:  # noqa: B008
    """Return a .nii file whose header holds `fields`, true or not."""
    data = plain() if data is None else data
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(data, AFFINE, header)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 1)
    raw = bytearray(image.to_bytes())
    view = np.ndarray((), image.header.template_dtype.newbyteorder(header.endianness), buffer=raw)
    for name, value in fields.items():
        view[name] = value
    return bytes(raw)


def with_extension() -> bytes:
    header = nib.Nifti1Header()
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a remark" * 30))
    return nifti(header=header)


def sform(affine) -> dict:
    """Return the fields that give the affine by the sform."""
    rows = dict(zip(("srow_x", "srow_y", "srow_z"), np.asarray(affine, float), strict=False))
    return {"sform_code": 1, **rows}


def file(name: str, content: Callable[[], bytes] | bytes) -> Maker:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content())
        return folder / name

    return make


def saying(**fields) -> Maker:
    return file("scan.nii", lambda: nifti(**fields))


def holding(data: Callable[[], np.ndarray], name="scan.nii.gz", affine=AFFINE) -> Maker:
    return lambda folder: write(folder / name, data(), affine)


def changed(index, value) -> Callable[[], np.ndarray]:
    def data():
        found = brain(SHAPE)
        found[index] = value
        return found

    return data


def zipped(level=1) -> bytes:
    return gzip.compress(nifti(), level)


def flipped(place: int) -> bytes:
    content = bytearray(zipped())
    content[place] ^= 0xFF
    return bytes(content)


def named(name: str | bytes) -> Maker:
    """Write the plain scan under a name that makes trouble."""

    def make(folder: Path) -> Path:
        path = folder / os.fsdecode(name)
        path.write_bytes(nifti())
        return path

    return make


def folder_named_as_file(folder: Path) -> Path:
    (folder / "scan.nii").mkdir()
    return folder / "scan.nii"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "scan.nii")
    return folder / "scan.nii"


def link(target: str) -> Maker:
    def make(folder: Path) -> Path:
        (folder / "other.nii").symlink_to("scan.nii")
        (folder / "scan.nii").symlink_to(target)
        return folder / "scan.nii"

    return make


def pair(spoil: Callable[[Path], None], **fields) -> Maker:
    """Write a .hdr/.img pair and spoil it."""

    def make(folder: Path) -> Path:
        nib.save(nib.Nifti1Pair(plain(), AFFINE), folder / "scan.img")
        raw = bytearray((folder / "scan.hdr").read_bytes())
        header = np.ndarray((), nib.Nifti1Header.template_dtype, buffer=raw)
        for name, value in fields.items():
            header[name] = value
        (folder / "scan.hdr").write_bytes(raw)
        spoil(folder / "scan.img")
        return folder / "scan.hdr"

    return make


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def surfer(change: Callable[[bytes], bytes]) -> Maker:
    def make(folder: Path) -> Path:
        nib.save(nib.MGHImage(plain(), AFFINE), folder / "scan.mgz")
        (folder / "scan.mgz").write_bytes(change((folder / "scan.mgz").read_bytes()))
        return folder / "scan.mgz"

    return make


def nearly_empty() -> np.ndarray:
    data = np.zeros(SHAPE, np.float32)
    data[9:11, 9, 9] = 5, 6
    return data


def two_backgrounds() -> np.ndarray:
    data = np.maximum(brain(SHAPE), 10)
    data[:3] = 0
    return data


COLOR = [("R", "u1"), ("G", "u1"), ("B", "u1")]
FLIPPED = np.diag([-2.0, 2.0, 2.0, 1.0])
LIE = "cannot be read|promises"

VOLUMES: dict[str, tuple[Maker, str]] = {
    "truncated gzip": (file("scan.nii.gz", lambda: zipped()[:1500]), LIE),
    "gzip with a wrong checksum": (file("scan.nii.gz", lambda: flipped(-6)), "CRC|crc"),
    "gzip with a flipped byte": (file("scan.nii.gz", lambda: flipped(1500)), "cannot be read"),
    "gzip with a wrong length": (file("scan.nii.gz", lambda: flipped(-2)), "cannot be read"),
    "gzip with garbage behind": (file("scan.nii.gz", lambda: zipped() + b"x" * 99), "cannot be r"),
    "gzip that is none": (file("scan.nii.gz", nifti), "cannot be read"),
    "gzip of gigabytes": (
        file("scan.nii.gz", lambda: gzip.compress(nifti() + bytes(1 << 26), 1)),
        "the file holds more",
    ),
    "wrong magic": (saying(magic=b"xyz"), "cannot be read"),
    "more voxels than data": (saying(dim=(3, 20, 24, 999, 1, 1, 1, 1)), LIE),
    "gigabytes of voxels": (saying(dim=(3, 1000, 1000, 1000, 1, 1, 1, 1)), LIE),
    "terabytes of voxels": (saying(dim=(3, 30000, 30000, 30000, 1, 1, 1, 1)), "at most 1073741824"),
    "more voxels than 64 bits count": (
        file(
            "scan.nii",
            lambda: nifti(header=nib.Nifti2Header(), dim=(3, 2**32, 2**32, 2, 1, 1, 1, 1)),
        ),
        "at most 1073741824",
    ),
    "no voxel": (saying(dim=(3, 20, 0, 16, 1, 1, 1, 1)), "expected a 3-D volume"),
    "a negative number of voxels": (saying(dim=(3, 20, -24, 16, 1, 1, 1, 1)), "expected a 3-D vol"),
    "no dimensions": (saying(dim=(0, 0, 0, 0, 0, 0, 0, 0)), "cannot be read|3-D"),
    "unknown type of numbers": (saying(datatype=999), "cannot be read"),
    "quadruple precision": (saying(datatype=1536), "cannot be read"),
    "voxels that start beyond the end": (saying(vox_offset=1e9), LIE),
    "voxels that start nowhere": (saying(vox_offset=np.nan), "cannot be read"),
    "voxels that start with the header": (saying(vox_offset=0), "from byte 352 on .*found 0"),
    "voxels that start in the header of NIfTI-2": (
        file("scan.nii", lambda: nifti(header=nib.Nifti2Header(), vox_offset=352)),
        "vox offset 352 too low",
    ),
    "voxels that start before the header": (saying(vox_offset=-1000), "cannot be read"),
    "header extension of two gigabytes": (
        file(
            "scan.nii", lambda: nifti(vox_offset=1e6)[:348] + b"\1\0\0\0" + b"\xf0\xff\xff\x7f" * 9
        ),
        "cannot be read",
    ),
    "pair of which one lacks": (pair(Path.unlink), r"scan\.img: expected a volume, found no such"),
    "pair with a pipe": (pair(as_pipe), r"scan\.img: .*found a pipe"),
    "pair that lies": (pair(lambda _: None, dim=(3, 20, 24, 999, 1, 1, 1, 1)), "cannot be read"),
    "pair of terabytes": (
        pair(lambda _: None, dim=(3, 30000, 30000, 30000, 1, 1, 1, 1)),
        "at most",
    ),
    "truncated mgz": (surfer(lambda content: content[:2000]), "cannot be read"),
    "mgz without voxels": (
        surfer(lambda content: gzip.compress(gzip.decompress(content)[:4] + bytes(9000))),
        "non-zero",
    ),
    "text as mgz": (surfer(lambda _: b"subject,split\n"), "cannot be read"),
    "NaN": (holding(changed((3, 4, 5), np.nan)), "1 of 7680 NaN"),
    "infinity": (holding(changed((3, 4, 5), -np.inf)), "NaN or infinite"),
    "scale that overflows": (saying(scl_slope=3e38), "NaN or infinite"),
    "scale that underflows": (saying(scl_slope=1e-42), "magnitude"),
    "intercept that is NaN": (saying(scl_slope=1, scl_inter=np.nan), "cannot be read"),
    "intercept that is infinite": (saying(scl_slope=1, scl_inter=np.inf), "cannot be read"),
    "double precision that overflows": (
        holding(lambda: brain(SHAPE).astype(np.float64) * 1e300),
        "NaN or infinite",
    ),
    "intensities near overflow": (holding(lambda: brain(SHAPE) * np.float32(1e35)), "magnitude"),
    "spacing of 0": (saying(pixdim=(1, 2, 0, 2, 1, 1, 1, 1)), "voxel sizes above 0"),
    "spacing of 0 and no affine": (
        saying(pixdim=(1, 2, 0, 2, 1, 1, 1, 1), sform_code=0, qform_code=0),
        "above 0|places",
    ),
    "negative spacing": (saying(pixdim=(1, -2, 2, 2, 1, 1, 1, 1)), "above 0"),
    "spacing of NaN": (saying(pixdim=(1, np.nan, 2, 2, 1, 1, 1, 1)), "above 0"),
    "infinite spacing": (saying(pixdim=(1, np.inf, 2, 2, 1, 1, 1, 1), sform_code=0), "places"),
    "spacing other than the affine's": (saying(pixdim=(1, 1, 2, 2, 1, 1, 1, 1)), "one voxel size"),
    "singular affine": (saying(**sform(np.diag([2, 0, 2, 1]))), "expected an affine"),
    "affine of NaN": (saying(**sform(np.diag([2, np.nan, 2, 1]))), "expected an affine"),
    "infinite affine": (saying(**sform(np.diag([2, np.inf, 2, 1]))), "expected an affine"),
    "affine of two equal axes": (
        saying(**sform([[2, 2, 0, 0], [0, 1e-9, 0, 0], [0, 0, 2, 0]])),
        "expected an affine",
    ),
    "quaternion of no rotation": (saying(quatern_b=9, sform_code=0), "cannot be read"),
    "sform and qform that mirror each other": (saying(**sform(FLIPPED)), "one orientation"),
    "micrometers": (saying(xyzt_units=3), "expected millimeters"),
    "meters": (saying(xyzt_units=1), "expected millimeters"),
    "5-D": (holding(lambda: np.stack([brain(SHAPE)] * 2, -1)[:, :, :, None]), "expected a 3-D"),
    "4-D": (holding(lambda: np.stack([brain(SHAPE)] * 2, -1)), "expected a 3-D"),
    "2-D": (holding(lambda: np.ones((20, 20), np.float32)), "expected a 3-D"),
    "a single voxel": (holding(lambda: np.ones((1, 1, 1), np.float32)), "expected a 3-D"),
    "one slice": (holding(lambda: brain((20, 24, 1))), "expected a 3-D"),
    "color": (holding(lambda: np.zeros(SHAPE, COLOR)), "one real number"),
    "complex": (holding(lambda: brain(SHAPE).astype(np.complex64)), "complex64"),
    "constant": (holding(lambda: np.full(SHAPE, 7, np.int16)), "constant"),
    "all zero": (holding(lambda: np.zeros(SHAPE, np.int16)), "every voxel is 0"),
    "a mask instead of a scan": (holding(lambda: (brain(SHAPE) > 0).astype(np.uint8)), "mask"),
    "tissue around the brain": (holding(lambda: head(SHAPE)), "HD-BET"),
    "a background of two values": (holding(two_backgrounds), "HD-BET"),
    "a whole head": (holding(lambda: brain((60,) * 3), affine=np.diag([4, 4, 4, 1])), "HD-BET"),
    "nearly empty brain": (holding(nearly_empty), "only 2 of 7680 voxels"),
    "empty file": (file("scan.nii", b""), "cannot be read"),
    "empty gzip file": (file("scan.nii.gz", b""), "cannot be read"),
    "half a header": (file("scan.nii", lambda: nifti()[:200]), "cannot be read"),
    "text": (file("scan.nii", b"subject,split,image,mask\n" * 40), "cannot be read"),
    "a web page": (file("scan.nii.gz", b"<html>404 not found</html>"), "cannot be read"),
    "DICOM": (
        file("scan.dcm", bytes(128) + b"DICM" + bytes(400)),
        "found DICOM files; convert them, e.g. with dcm2niix",
    ),
    "zip": (file("scan.nii.zip", b"PK\5\6" + bytes(18)), "the ending '.zip'"),
    "no ending": (file("scan", nifti), "the ending ''"),
    "missing": (lambda folder: folder / "scan.nii", "found no such"),
    "folder with the name of a file": (folder_named_as_file, "found none in it"),
    "pipe": (pipe, "found a pipe"),
    "device without an end": (link("/dev/zero"), "found a pipe or a device"),
    "loop of links": (link("other.nii"), "too many levels of symbolic links"),
    "link to nothing": (link("gone.nii"), "found no such"),
    "newline in the name": (named("sc\nan.nii"), "fit for a file"),
    "quote in the name": (named('sc"an.nii'), "fit for a file"),
    "hidden name": (named(".nii"), "fit for a file"),
    "backslash in the name": (named("..\\scan.nii"), "fit for a file"),
    "name of 255 bytes": (named("n" * 251 + ".nii"), "fit for a file"),
    "name that is no text": (named(b"sc\xffan.nii"), "fit for a file"),
    "name too long for any file": (lambda folder: folder / ("n" * 300 + ".nii"), "too long"),
    "null byte in the name": (lambda folder: folder / "sc\0an.nii", "found no such"),
}
"""Bad volumes: how to make one, and what the message says."""


def mask(data: Callable[[], np.ndarray], affine=AFFINE) -> Maker:
    return holding(data, "mask.nii.gz", affine)


def lesion(value=1) -> np.ndarray:
    data = np.zeros(SHAPE, np.float32)
    data[8:12, 8:12, 6:9] = value
    return data


MASKS: dict[str, tuple[Maker, str]] = {
    "other shape": (mask(lambda: lesion()[:, :, 1:]), "image's shape"),
    "other affine": (mask(lesion, np.diag([2.0, 2.0, 2.2, 1.0])), "affine of its image"),
    "shifted": (mask(lesion, AFFINE + np.eye(4, k=3)), "affine of its image"),
    "mirrored": (mask(lesion, FLIPPED), "affine of its image"),
    "negative labels": (mask(lambda: lesion(-1)), "found -1"),
    "labels that are fractions": (mask(lambda: lesion(0.4)), "fractions"),
    "NaN": (mask(lambda: lesion(np.nan)), "NaN"),
    "color": (mask(lambda: np.zeros(SHAPE, COLOR)), "one real number"),
    "truncated": (file("mask.nii.gz", lambda: zipped()[:1500]), LIE),
    "pipe": (lambda folder: Path(pipe(folder).rename(folder / "mask.nii.gz")), "pipe"),
}
"""Bad masks of a scan of an anomalous data set."""
