"""Odd files of the plain scan of `corpus`: valid, and with the same slices."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.helpers.corpus import (
    AFFINE,
    BIG,
    SHAPE,
    Maker,
    file,
    named,
    nifti,
    pair,
    plain,
    saying,
    with_extension,
    zipped,
)


def oriented(codes: str) -> Maker:
    def make(folder: Path) -> Path:
        wanted = nib.orientations.axcodes2ornt(codes)
        turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), wanted)
        nib.save(nib.Nifti1Image(plain(), AFFINE).as_reoriented(turn), folder / "scan.nii")
        return folder / "scan.nii"

    return make


def oblique(folder: Path) -> Path:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    nib.save(nib.Nifti1Image(plain(), turn @ AFFINE), folder / "scan.nii")
    return folder / "scan.nii"


def saved(kind: type, name: str, data: Callable[[], np.ndarray] = plain) -> Maker:
    def make(folder: Path) -> Path:
        nib.save(kind(data(), AFFINE), folder / name)
        return folder / name

    return make


def members() -> bytes:
    content = nifti()
    return gzip.compress(content[:5000]) + gzip.compress(content[5000:]) + bytes(64)


def background(value: float) -> np.ndarray:
    return np.where(plain() > 0, plain(), value).astype(np.float32)


def residue(columns=slice(None)) -> np.ndarray:
    """Return the plain scan with what splines leave of the brain in columns of the background."""
    left = np.zeros(SHAPE, np.float32)
    left[columns] = np.random.default_rng(0).normal(0, 1e-5, SHAPE)[columns]
    return np.where(plain() > 0, plain(), left).astype(np.float32)


ODDITIES: dict[str, Maker] = {
    "big-endian": file("scan.nii", lambda: nifti(header=BIG)),
    "scaled whole numbers": saying(scl_slope=0.25, scl_inter=0),
    "scale 0, which means none": saying(scl_slope=0, scl_inter=7),
    "scale NaN, which means none": saying(scl_slope=np.nan),
    "scale and intercept": file(
        "scan.nii", lambda: nifti(plain() - 100, scl_slope=1, scl_inter=100)
    ),
    "intercept without a zero": saying(scl_slope=1, scl_inter=1000),
    "slope and intercept without a zero": saying(scl_slope=0.1, scl_inter=-3.3),
    "background of -1": saved(nib.Nifti1Image, "scan.nii", lambda: background(-1)),
    "background of 1e-7": saved(nib.Nifti1Image, "scan.nii", lambda: background(1e-7)),
    "background of -1024": saved(nib.Nifti1Image, "scan.nii", lambda: background(-1024)),
    "residue of interpolation": saved(nib.Nifti1Image, "scan.nii", lambda: residue()),
    "residue in a part": saved(nib.Nifti1Image, "scan.nii", lambda: residue(range(5, 15))),
    "gzip": file("scan.nii.gz", zipped),
    "gzip of several members": file("scan.nii.gz", members),
    "gzip without compression": file("scan.nii.gz", lambda: zipped(0)),
    "capital letters": file("SCAN.NII.GZ", zipped),
    "NIfTI-2": file("scan.nii", lambda: nifti(header=nib.Nifti2Header())),
    "pair by its header": pair(lambda _: None),
    "pair by its voxels": lambda folder: pair(lambda _: None)(folder).with_suffix(".img"),
    "Analyze": lambda folder: saved(nib.Spm99AnalyzeImage, "scan.img")(folder),
    "mgz": saved(nib.MGHImage, "scan.mgz"),
    "LPS": oriented("LPS"),
    "SAR": oriented("SAR"),
    "oblique": oblique,
    "bytes": saved(nib.Nifti1Image, "scan.nii", lambda: plain().astype(np.uint8)),
    "signed bytes": file(
        "scan.nii", lambda: nifti((plain() - 64).astype(np.int8), scl_slope=1, scl_inter=64)
    ),
    "unsigned": saved(nib.Nifti1Image, "scan.nii", lambda: plain().astype(np.uint16)),
    "double precision": saved(nib.Nifti1Image, "scan.nii", lambda: plain().astype(np.float64)),
    "4-D of one volume": saved(nib.Nifti1Image, "scan.nii", lambda: plain()[..., None]),
    "header extension": file("scan.nii", with_extension),
    "qform alone": saying(sform_code=0),
    "sform alone": saying(qform_code=0, quatern_b=0.5),
    "another size of the header": saying(sizeof_hdr=12345),
    "leading dash": named("-scan.nii"),
    "spaces and letters of other alphabets": named("mein scan ä 脳.nii"),
    "link": lambda folder: _linked(folder),
    "trailing bytes": file("scan.nii", lambda: nifti() + bytes(1000)),
}
"""Odd files of the plain scan, which give the same slices."""


def _linked(folder: Path) -> Path:
    target = named("target.nii")(folder)
    (folder / "scan.nii").symlink_to(target)
    return folder / "scan.nii"
