"""Damaged volumes and lists never end in anything but an InputError or a valid result.

What the long runs found lies in `corpus`.
"""

import gzip
import time
import warnings
from functools import partial
from pathlib import Path

import hypothesis
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cradl_jax.data.scans.layouts import find_scans
from cradl_jax.data.scans.volumes import read_origin, read_volume
from cradl_jax.data.slices.preprocess import normalized_slices
from cradl_jax.data.slices.scan_statistics import describe
from cradl_jax.errors import InputError
from cradl_jax.intensity import CLIP
from cradl_jax.prediction import inputs
from tests.helpers import corpus
from tests.helpers.scans import brain, write

SECONDS = 60  # of a long run
QUIET = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.generate),
}
EXTREMES = (0, -1, 1, 3, 255, 32767, -32768, 2**31 - 1, 1e-45, 1e38, 1e300, np.nan, np.inf)
FIELDS = nib.Nifti1Header.template_dtype


def files() -> dict[str, bytes]:
    """A file of each kind, unpacked; those that end in gz are packed when they are damaged."""
    pair = nib.Nifti1Pair(corpus.plain(), corpus.AFFINE)
    return {
        "scan.nii": corpus.nifti(),
        "big.nii": corpus.nifti(header=corpus.BIG),
        "two.nii": corpus.nifti(header=nib.Nifti2Header()),
        "extended.nii": corpus.with_extension(),
        "scan.nii.gz": corpus.nifti(),
        "scan.mgz": nib.MGHImage(corpus.plain(), corpus.AFFINE).to_bytes(),
        "scan.hdr": pair.header.binaryblock + bytes(4),
    }


FILES = files()
PLACE = st.one_of(st.integers(0, 360), st.integers(0, 16000))
DAMAGE = st.one_of(
    st.tuples(st.just("bytes"), PLACE, st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("cut"), PLACE, st.just(b"")),
    st.tuples(st.just("insert"), PLACE, st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("field"), st.sampled_from(FIELDS.names), st.sampled_from(EXTREMES)),
    st.tuples(st.just("packed"), PLACE, st.binary(min_size=1, max_size=4)),
)


def damaged(name: str, damages: list) -> bytes:
    raw, packed = bytearray(FILES[name]), name.endswith("gz")
    for kind, place, value in damages:
        if kind == "bytes":
            raw[place : place + len(value)] = value
        elif kind == "cut":
            del raw[place:]
        elif kind == "insert":
            raw[place:place] = value
        elif kind == "field" and len(raw) >= 348:
            header = np.ndarray((), FIELDS, buffer=raw[:348])
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header[place] = np.array(value).astype(header[place].dtype)
            raw[:348] = header.tobytes()
    content = bytearray(gzip.compress(raw, 1)) if packed else raw
    for kind, place, value in damages:
        if kind == "packed" and packed:
            content[place : place + len(value)] = value
    return bytes(content)


def check_volume(folder: Path, name: str, damages: list) -> None:
    """A damaged file is refused, or gives slices of finite numbers in their range."""
    path = folder / name
    path.write_bytes(damaged(name, damages))
    if path.suffix == ".hdr":
        path.with_suffix(".img").write_bytes(corpus.plain().tobytes(order="F"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            volume = read_volume(path)
        slices, mean, std = normalized_slices(
            volume.data, None, volume.spacing_mm, size=16, field_mm=48.0
        )
    except InputError as fault:
        assert str(fault).isprintable()
        assert path.stem.split(".")[0] in str(fault) or "axial slices" in str(fault)
        return
    assert volume.data.dtype == np.float32 and volume.data.shape == read_origin(path).ras_shape
    assert np.isfinite(volume.data).all() and np.isfinite(volume.affine).all()
    assert all(0 < step < np.inf for step in volume.spacing_mm)
    assert np.isfinite([mean, std]).all() and std > 0
    assert np.abs(slices.images).max() <= CLIP and np.isfinite(slices.position).all()
    found = describe(volume)
    assert np.isfinite(np.concatenate([np.ravel(value) for value in found])).all()


def list_text() -> st.SearchStrategy[bytes]:
    cell = st.one_of(
        st.sampled_from(
            ["subject", "split", "image", "mask", "a", "train", "val", "a.nii", "b.nii"]
        ),
        st.sampled_from(["", " ", '"', '""', "\0", "../a.nii", ".", "/", "\ufeff", "\u2028"]),
        st.text(max_size=20),
    )
    row = st.lists(cell, max_size=6).map(",".join)
    joined = st.tuples(st.sampled_from(["\n", "\r\n", "\r"]), st.lists(row, max_size=6))
    header = st.sampled_from(["", "subject,split,image,mask\n", "image\n", "image,subject\n"])
    tables = st.tuples(header, joined.map(lambda parts: parts[0].join(parts[1]))).map("".join)
    return st.one_of(
        tables.map(lambda text: text.encode("utf-8", "surrogatepass")),
        tables.map(lambda text: text.encode("utf-16", "surrogatepass")),
        st.binary(max_size=300),
    )


def check_list(folder: Path, content: bytes) -> None:
    """A list of any content is refused, or names scans that are there."""
    path = folder / "list.csv"
    path.write_bytes(content)
    for read in (lambda: find_scans(path, "csv"), lambda: inputs.find_scans(path)):
        try:
            scans = read()
        except InputError as fault:
            assert all(line.isprintable() for line in str(fault).splitlines())
            assert str(folder) in str(fault) or "name" in str(fault)
        else:
            assert scans
            for scan in scans:
                assert scan[0].isprintable() if isinstance(scan, tuple) else scan.image.is_file()


def long_run(check, *strategies: st.SearchStrategy) -> None:
    """Another seed each time, until the time is over."""
    end, number = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        one = given(st.tuples(*strategies))(lambda values: check(*values))
        hypothesis.seed(number)(settings(max_examples=300, **QUIET)(one))()
        number += 1


@pytest.fixture
def folder(tmp_path):
    for name in ("a.nii", "b.nii"):
        write(tmp_path / name, brain())
    return tmp_path


VOLUMES = st.sampled_from(sorted(FILES)), st.lists(DAMAGE, min_size=1, max_size=3)


@pytest.mark.slow
def test_volumes_for_a_minute(folder):
    long_run(partial(check_volume, folder), *VOLUMES)


@pytest.mark.slow
def test_lists_for_a_minute(folder):
    long_run(partial(check_list, folder), list_text())


@settings(max_examples=60, **QUIET)
@given(*VOLUMES)
def test_damaged_volumes(folder, name, damages):
    check_volume(folder, name, damages)


@settings(max_examples=60, **QUIET)
@given(list_text())
def test_damaged_lists(folder, content):
    check_list(folder, content)
