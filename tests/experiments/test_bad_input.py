"""Every bad file and setting ends in one clear message, in seconds; odd but valid files work."""

import os
import re
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cradl_jax.data.scans.checks import scan_faults
from cradl_jax.data.scans.layouts import Scan, find_scans, raise_faults
from cradl_jax.data.scans.splits import listed_splits, subject_faults
from cradl_jax.data.scans.volumes import read_origin, read_volume
from cradl_jax.data.slices.building import complete_store, plan_job, slice_scans
from cradl_jax.data.slices.preprocess import normalized_slices
from cradl_jax.prediction import inputs
from tests.helpers import corpus, corpus_settings, oddities
from tests.helpers.refusals import in_time, refusal  # noqa: F401
from tests.helpers.scans import brain, write

REPOSITORY = Path(__file__).parents[2]
MOST_BYTES = 1 << 27  # that it may cost
HOW = {"size": 16, "field_mm": 48.0}


def slices_of(path: Path) -> np.ndarray:
    """As experiments.predict reads a scan."""
    ((_, image),) = inputs.find_scans(path)
    volume = read_volume(image)
    return normalized_slices(volume.data, None, volume.spacing_mm, **HOW)[0].images


@pytest.mark.parametrize("name", corpus.VOLUMES)
def test_bad_volume(name, tmp_path, capfd):
    make, cause = corpus.VOLUMES[name]
    path = make(tmp_path)
    tracemalloc.start()
    message = refusal(slices_of, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert re.search(cause, message), message
    assert repr(str(tmp_path))[1:-1] in message and ";" in message
    assert peak < MOST_BYTES or name == "header extension of two gigabytes"  # virtual, of nibabel
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", oddities.ODDITIES)
def test_odd_volume_gives_the_same_slices(name, tmp_path, capfd):
    expected = slices_of(write(tmp_path / "plain" / "plain.nii", corpus.plain(), corpus.AFFINE))
    path = oddities.ODDITIES[name](tmp_path)
    found = slices_of(path)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert read_origin(path).ras_shape == corpus.SHAPE
    assert capfd.readouterr() == ("", "")


def test_negative_intensities_are_z_scored(tmp_path):
    data = np.where(brain() > 0, brain() - 100, 0)
    assert (data < 0).any()
    found = slices_of(write(tmp_path / "scan.nii", data))
    expected = slices_of(write(tmp_path / "plain.nii", brain()))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_scan_that_may_not_be_read():
    """As another user, since root may read everything."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        path = write(Path(place) / "scan.nii", brain())
        path.chmod(0)
        user = os.geteuid()
        os.seteuid(user or 65534)
        try:
            message = refusal(slices_of, path)
        finally:
            os.seteuid(user)
    assert "Permission denied" in message and "scan.nii" in message


def study(tmp_path, mask=None):
    """The faults of a data set of one scan, as experiments.preprocess finds them."""
    image = write(tmp_path / "image.nii", brain(), corpus.AFFINE)
    scans, settings = [Scan("a", image, mask, "val")], HOW | {"slice_spacing_mm": None}

    def faults(annotated):
        job = plan_job(tmp_path / annotated, scans, settings, 1, annotated)
        sliced = slice_scans(job, None, 1)
        assert sliced or complete_store(job, None) is not None
        assert scan_faults(scans, settings, annotated, 1, "") in (sliced, []), (
            "read without slicing"
        )
        return sliced

    return faults


@pytest.mark.parametrize("name", corpus.MASKS)
def test_bad_mask(name, tmp_path):
    make, cause = corpus.MASKS[name]
    (fault,) = study(tmp_path, make(tmp_path))("all")
    message = refusal(raise_faults, [fault])
    assert re.search(cause, message) and str(tmp_path / "mask.nii.gz") in message


def test_masks_that_do_not_suit_their_data_set(tmp_path):
    marked, empty = tmp_path / "marked.nii", tmp_path / "empty.nii"
    write(marked, corpus.lesion(), corpus.AFFINE)
    write(empty, corpus.lesion(0), corpus.AFFINE)
    (fault,) = study(tmp_path, marked)("none")
    assert "marked.nii: expected no anomaly in a healthy data set, found 48 voxels" in fault
    (fault,) = study(tmp_path, empty)("some")
    assert "empty.nii" in fault and "found none in any" in fault
    assert study(tmp_path, marked)("all") == study(tmp_path, empty)("none") == []


def listed(path: Path) -> list[Scan]:
    """As experiments.preprocess reads a list."""
    scans = find_scans(path, "csv")
    raise_faults(subject_faults({"list": scans}))
    return scans


@pytest.fixture
def scans(tmp_path):
    for name in ("a.nii", "b.nii"):
        write(tmp_path / name, brain())
    return tmp_path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", corpus_settings.LISTS)
def test_bad_list(name, scans):
    content, cause = corpus_settings.LISTS[name]
    message = refusal(listed, written(scans / "list.csv", content))
    assert re.search(cause, message), message
    assert str(scans) in message and ";" in message


@pytest.mark.parametrize("name", corpus_settings.NAMES)
def test_bad_name_for_output_files(name, scans):
    content, cause = corpus_settings.NAMES[name]
    message = refusal(inputs.find_scans, written(scans / "list.csv", content))
    assert re.search(cause, message), message


@pytest.mark.parametrize("kind", ["csv", "bids"])
def test_list_that_is_a_pipe(kind, tmp_path):
    name = "list.csv" if kind == "csv" else "participants.tsv"
    os.mkfifo(tmp_path / name)
    if kind == "csv":
        assert "found a pipe" in refusal(find_scans, tmp_path / name, "csv")
        assert "found a pipe" in refusal(inputs.find_scans, tmp_path / name)
        assert "found a pipe" in refusal(listed_splits, [], tmp_path / name)
    write(tmp_path / "sub-a\nb" / "anat" / "sub-a\nb_T2w.nii", brain())
    assert "printable" in refusal(find_scans, tmp_path, "bids")


def test_odd_lists_work(scans):
    lines = "subject,split,image,mask\r\na,train,a.nii,\r\n\r\n b , val ,b.nii"
    plain = listed(written(scans / "list.csv", lines.replace("\r", "").encode()))
    for content in (lines, "\ufeff" + lines, lines.replace("mask\r", "mask,,\r")):
        assert listed(written(scans / "list.csv", content.encode())) == plain
    (scans / "below").mkdir()
    outside = f"subject,split,image,mask\na,train,../a.nii,\nb,val,{scans / 'b.nii'},\n"
    found = listed(written(scans / "below" / "list.csv", outside.encode()))
    assert [scan.image.resolve() for scan in found] == [scan.image for scan in plain]
