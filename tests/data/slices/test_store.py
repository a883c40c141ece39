import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cradl_jax.data.scans.layouts import Scan
from cradl_jax.data.scans.volumes import read_volume
from cradl_jax.data.slices.building import build_store
from cradl_jax.data.slices.journal import sliced
from cradl_jax.data.slices.preprocess import moments, normalize, slice_volume
from cradl_jax.data.slices.store import ARRAYS, FORMAT, anomalous, find_store, open_store
from cradl_jax.errors import InputError
from cradl_jax.storage.integrity import write_checksums
from tests.helpers.scans import brain, write

HOW = {"size": 12, "field_mm": 48.0, "offset": 1, "slice_spacing_mm": None}


@pytest.fixture
def scans(tmp_path):
    """A healthy scan, and two of one patient: of other shapes, both with a lesion."""
    scans = []
    for i, (subject, split, shape) in enumerate(
        [("h", "train", (20, 24, 16)), ("p", "test", (18, 26, 12)), ("p", "test", (24, 20, 20))]
    ):
        data = brain(shape, seed=i)
        data[:, :, 9] *= i != 2  # of the last one a slice is blank
        image = write(tmp_path / "data" / f"{i}.nii.gz", data)
        lesion = (data > 0) & (np.indices(shape)[0] < shape[0] // 2)
        mask = write(tmp_path / "data" / f"{i}_mask.nii.gz", lesion.astype(np.uint8)) if i else None
        scans.append(Scan(subject, image, mask, split))
    return scans


def test_a_store_holds_the_slices_of_every_scan(tmp_path, scans):
    store = build_store(tmp_path / "slices" / "set", scans, **HOW, workers=2)
    room = np.cumsum([0, 14, 10, 18])
    assert len(store.z) == room[-1]
    assert not store.path.with_name("set.partial").exists()
    for number, scan in enumerate(scans):
        data = read_volume(scan.image).data
        score = normalize(data, data != 0, *moments(data, data != 0))
        lesion = np.indices(data.shape)[0] < data.shape[0] // 2
        mask = (data > 0) & lesion if number else None
        expected = slice_volume(score, data != 0, mask, (2, 2, 2), **HOW)
        rows, counted = np.flatnonzero(store.scans == number), expected.counted
        assert len(rows) == len(counted) - (number == 2), "blank slices belong to no scan"
        np.testing.assert_array_equal(rows, room[number] + np.flatnonzero(counted))
        for name in ("images", "brains", "masks"):
            stored = getattr(store, name)[room[number] : room[number + 1]]
            np.testing.assert_array_equal(stored[: len(counted)], getattr(expected, name))
            assert not stored[len(counted) :].any()
        np.testing.assert_array_equal(store.z[rows], expected.z_index[counted])
        np.testing.assert_array_equal(store.position[rows], expected.position[counted])
        assert set(store.subjects[rows]) == {scan.subject}
        record = store.records[number]
        assert (store.path / record["image"]).resolve() == scan.image
        np.testing.assert_allclose(
            (record["mean"], record["std"]),
            (data[data > 0].mean(), data[data > 0].std()),
            rtol=1e-4,
        )
        assert record["n_slices"] == len(counted) and record["shape"] == list(data.shape)
    np.testing.assert_array_equal(store.rows("train"), np.flatnonzero(store.scans == 0))
    np.testing.assert_array_equal(store.rows("test"), np.flatnonzero(store.scans > 0))
    assert store.rows("val").size == 0
    assert isinstance(store.images, np.memmap) and not store.images.flags.writeable


def test_blank_rows_take_no_space_on_the_disk(tmp_path):
    data = np.pad(brain((40, 40, 20)), ((0, 0), (0, 0), (0, 400)))
    scans = [Scan("a", write(tmp_path / "a.nii.gz", data), None, "train")]
    store = build_store(tmp_path / "set", scans, size=64, field_mm=80.0, workers=1)
    stats = (store.path / "images.npy").stat()
    assert len(store.images) == 420 and len(store.rows("train")) < 20
    assert stats.st_blocks * 512 < stats.st_size / 10


def test_a_store_is_kept_while_its_scans_and_settings_are_the_same(tmp_path, scans):
    path = tmp_path / "set"
    build_store(path, scans, **HOW, workers=1)
    written = (path / "images.npy").stat().st_mtime_ns
    copied = []
    for scan in scans:
        scan.image.touch()
        files = [f and Path(shutil.copy(f, tmp_path / f.name)) for f in (scan.image, scan.mask)]
        copied.append(replace(scan, image=files[0], mask=files[1]))
    build_store(path, copied, **HOW, workers=1)
    assert (path / "images.npy").stat().st_mtime_ns == written

    shutil.move(path, tmp_path / "moved")
    assert find_store(tmp_path / "moved", scans, **HOW) is not None

    shifted = write(tmp_path / "shifted.nii.gz", np.roll(read_volume(scans[1].image).data, 1))
    relabeled = write(tmp_path / "none.nii.gz", np.zeros((18, 26, 12), np.uint8))
    for other, how in (
        (scans, HOW | {"size": 13}),
        (scans, HOW | {"offset": 2}),
        (scans, HOW | {"slice_spacing_mm": 4.0}),
        (scans[:2], HOW),
        ([scans[0], replace(scans[1], image=shifted), scans[2]], HOW),
        ([scans[0], replace(scans[1], mask=relabeled), scans[2]], HOW),
        ([replace(scans[0], split="val"), *scans[1:]], HOW),
        ([replace(scans[0], subject="x"), *scans[1:]], HOW),
    ):
        assert find_store(tmp_path / "moved", other, **how) is None


def test_both_halves_of_an_analyze_pair_count(tmp_path):
    image = write(tmp_path / "a.img", brain())
    how = {"scans": [Scan("a", image, None, "train")], **HOW}
    build_store(tmp_path / "set", **how, workers=1)
    write(tmp_path / "a.hdr", brain(), np.diag([1, 1, 1, 1]))
    assert find_store(tmp_path / "set", **how) is None


def truncate(path):
    path.write_bytes(path.read_bytes()[:-500])


@pytest.mark.parametrize(
    "damage",
    [
        lambda store: truncate(store / "images.npy"),
        lambda store: truncate(store / "index.csv"),
        lambda store: truncate(store / "scans.json"),
        lambda store: (store / "manifest.json").unlink(),
        lambda store: (store / "manifest.json").write_text("[]"),
        lambda store: np.save(store / "masks.npy", np.zeros((3, 12, 12), bool)),
        lambda store: np.save(store / "brains.npy", np.array([{}]), allow_pickle=True),
    ],
)
def test_a_damaged_store_is_refused_and_built_again(tmp_path, scans, damage):
    path = tmp_path / "set"
    whole = np.array(build_store(path, scans, **HOW, workers=1).images)
    damage(path)
    with pytest.raises(InputError, match="complete slice store"):
        open_store(path)
    np.testing.assert_array_equal(build_store(path, scans, **HOW, workers=1).images, whole)


def test_a_store_of_another_version_is_refused_in_one_sentence_and_built_again(tmp_path, scans):
    path = tmp_path / "set"
    build_store(path, scans, **HOW, workers=1)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))
    write_checksums(path)
    with pytest.raises(
        InputError,
        match=rf"^\S+/set: expected a slice store of format {FORMAT}, found 2; build it again with",
    ):
        open_store(path)
    assert build_store(path, scans, **HOW, workers=1).manifest == manifest


def test_a_bad_scan_leaves_the_former_store_and_what_is_sliced(tmp_path, scans):
    path = tmp_path / "slices" / "set"
    build_store(path, scans, **HOW, workers=1)
    truncate(scans[2].image)
    with pytest.raises(InputError, match=r"2\.nii\.gz: expected a complete volume"):
        build_store(path, scans, **HOW, workers=1)
    assert sorted(p.name for p in path.parent.iterdir()) == ["set", "set.partial"]
    assert sliced(path, scans, HOW) == {0, 1}
    assert len(open_store(path).z) == 42


def test_other_folders_are_left_alone(tmp_path, scans):
    (tmp_path / "notes.txt").write_text("keep")
    with pytest.raises(InputError, match="found other files"):
        build_store(tmp_path, scans, **HOW, workers=1)
    assert (tmp_path / "notes.txt").read_text() == "keep"


def test_a_disk_that_is_too_small_is_named_before_anything_is_read(tmp_path, scans):
    with pytest.raises(InputError, match=r"GB of free disk space for 42 slices"):
        build_store(tmp_path / "set", scans, **HOW | {"size": 10**6}, workers=1)
    assert not (tmp_path / "set").exists() and not (tmp_path / "set.partial").exists()


def test_too_few_slices_name_the_scan(tmp_path, scans):
    with pytest.raises(InputError, match=r"1\.nii\.gz: expected more than 12 axial slices"):
        build_store(tmp_path / "set", scans, **HOW | {"offset": 6}, workers=1)


def test_a_killed_process_leaves_no_store(tmp_path, scans):
    path = tmp_path / "set"
    many = [(s.subject, str(s.image), s.split) for s in scans] * 300
    script = (
        "import json, sys; from pathlib import Path\n"
        "from cradl_jax.data.scans.layouts import Scan\n"
        "from cradl_jax.data.slices.building import build_store\n"
        "scans = [Scan(a, Path(b), None, c) for a, b, c in json.load(sys.stdin)]\n"
        f"build_store(Path({str(path)!r}), scans, workers=1, **{HOW!r})\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[3],
    )
    process.stdin.write(json.dumps(many).encode())
    process.stdin.close()
    partial = tmp_path / "set.partial" / "work" / "plan.json"
    while not partial.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.1)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert partial.exists() and not path.exists()
    for place in (path, path.with_name("set.partial")):
        with pytest.raises(InputError):
            open_store(place)
    assert len(build_store(path, scans, **HOW, workers=1).z) == 42
    assert not partial.exists()


def test_a_slice_is_anomalous_with_more_than_five_voxels():
    masks = np.zeros((9, 8, 8), bool)
    for i, mask in enumerate(masks):
        mask.flat[7 : 7 + i] = True
    expected = [False] * 6 + [True] * 3
    for block in (1, 4, 1024):
        np.testing.assert_array_equal(anomalous(masks, block), expected)
    assert anomalous(masks[:0]).shape == (0,)


def test_released_memory_is_read_again(tmp_path, scans):
    store = build_store(tmp_path / "store", scans, **HOW, workers=1)
    before = {name: np.array(getattr(store, name)) for name in ARRAYS}
    store.release()
    for name, values in before.items():
        np.testing.assert_array_equal(getattr(store, name), values)
