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
from cradl_jax.data.slices.store import ARRAYS, anomalous, find_store, open_store
from cradl_jax.errors import InputError
from cradl_jax.storage.integrity import write_checksums
from tests.helpers.scans import brain, write

HOW = {"size": 12, "offset": 2}


@pytest.fixture
def scans(tmp_path):
    """A healthy scan, and two of one patient: of other shapes, both with a lesion."""
    scans = []
    for i, (subject, split, shape) in enumerate(
        [("h", "train", (20, 24, 16)), ("p", "test", (18, 26, 12)), ("p", "test", (24, 20, 20))]
    ):
        data = brain(shape, seed=i)
        image = write(tmp_path / "data" / f"{i}.nii.gz", data)
        lesion = (data > 0) & (np.indices(shape)[0] < shape[0] // 2)
        mask = write(tmp_path / "data" / f"{i}_mask.nii.gz", lesion.astype(np.uint8)) if i else None
        scans.append(Scan(subject, image, mask, split))
    return scans


def test_a_store_holds_the_slices_of_every_scan(tmp_path, scans):
    store = build_store(tmp_path / "slices" / "set", scans, **HOW, workers=2)
    assert len(store.z) == 12 + 8 + 16
    assert not store.path.with_name("set.partial").exists()
    for number, scan in enumerate(scans):
        data = read_volume(scan.image).data
        score = normalize(data, data != 0, *moments(data, data != 0))
        lesion = np.indices(data.shape)[0] < data.shape[0] // 2
        mask = (data > 0) & lesion if number else None
        expected = slice_volume(score, data != 0, mask, (2, 2, 2), **HOW)
        rows = np.flatnonzero(store.scans == number)
        np.testing.assert_array_equal(store.images[rows], expected.images)
        np.testing.assert_array_equal(store.brains[rows], expected.brains)
        np.testing.assert_array_equal(store.masks[rows], expected.masks)
        np.testing.assert_array_equal(store.z[rows], expected.z_index)
        np.testing.assert_array_equal(store.position[rows], expected.position)
        assert set(store.subjects[rows]) == {scan.subject}
        record = store.records[number]
        assert (store.path / record["image"]).resolve() == scan.image
        np.testing.assert_allclose(
            (record["mean"], record["std"]),
            (data[data > 0].mean(), data[data > 0].std()),
            rtol=1e-4,
        )
        assert record["n_slices"] == len(rows) and record["shape"] == list(data.shape)
    np.testing.assert_array_equal(store.rows("train"), np.arange(12))
    np.testing.assert_array_equal(store.rows("test"), np.arange(12, 36))
    assert store.rows("val").size == 0
    assert isinstance(store.images, np.memmap) and not store.images.flags.writeable


def test_the_median_pixel_of_a_split_and_stores_that_knew_no_other_center(tmp_path, scans):
    path = tmp_path / "set"
    store = build_store(path, scans, **HOW, workers=1)
    widths = [2 * max(read_volume(scan.image).data.shape[:2]) for scan in scans[1:]]
    assert np.isclose(store.pixel_mm("test"), np.median(widths) / 12)
    assert all(record["center_mm"] == [0, 0] for record in store.records)
    older = [{k: v for k, v in r.items() if k != "center_mm"} for r in store.records]
    (path / "scans.json").write_text(json.dumps(older))
    assert find_store(path, scans, **HOW) is None, "it was changed since it was written"
    write_checksums(path)
    assert find_store(path, scans, **HOW).pixel_mm("train") == 48 / 12


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
        (scans, HOW | {"offset": 1}),
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
        InputError, match=r"set: expected a slice store of format 3, found 2.*again"
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
    assert sliced(path, scans, {**HOW, "slice_spacing_mm": None}) == {0, 1}
    assert len(open_store(path).z) == 36


def test_other_folders_are_left_alone(tmp_path, scans):
    (tmp_path / "notes.txt").write_text("keep")
    with pytest.raises(InputError, match="found other files"):
        build_store(tmp_path, scans, **HOW, workers=1)
    assert (tmp_path / "notes.txt").read_text() == "keep"


def test_a_disk_that_is_too_small_is_named_before_anything_is_read(tmp_path, scans):
    with pytest.raises(InputError, match=r"GB of free disk space for 36 slices"):
        build_store(tmp_path / "set", scans, size=10**6, offset=2, workers=1)
    assert not (tmp_path / "set").exists() and not (tmp_path / "set.partial").exists()


def test_too_few_slices_name_the_scan(tmp_path, scans):
    with pytest.raises(InputError, match=r"1\.nii\.gz: expected more than 12 axial slices"):
        build_store(tmp_path / "set", scans, size=8, offset=6, workers=1)


def test_a_killed_process_leaves_no_store(tmp_path, scans):
    path = tmp_path / "set"
    many = [(s.subject, str(s.image), s.split) for s in scans] * 300
    script = (
        "import json, sys; from pathlib import Path\n"
        "from cradl_jax.data.scans.layouts import Scan\n"
        "from cradl_jax.data.slices.building import build_store\n"
        "scans = [Scan(a, Path(b), None, c) for a, b, c in json.load(sys.stdin)]\n"
        f"build_store(Path({str(path)!r}), scans, size=12, offset=2, workers=1)\n"
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
    assert len(build_store(path, scans, **HOW, workers=1).z) == 36
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
