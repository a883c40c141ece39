"""Shards build the store that one process builds, to the bit, also when they are killed."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cradl_jax.data.scans.layouts import Scan
from cradl_jax.data.slices import building, journal
from cradl_jax.data.slices.building import Shard, build_store
from cradl_jax.errors import InputError
from cradl_jax.storage import integrity
from experiments.study.preprocessing import shard_named
from tests.helpers.scans import brain, write

REPOSITORY = Path(__file__).parents[3]
HOW = {"size": 12, "field_mm": 48.0, "offset": 1, "slice_spacing_mm": None}


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Seven scans of several shapes, some with a mask."""
    folder, scans = tmp_path_factory.mktemp("data"), []
    for i in range(7):
        data = brain((20 + i, 24, 14 + 2 * (i % 3)), seed=i)
        mask = write(folder / f"{i}_mask.nii", (data > 120).astype(np.uint8)) if i % 2 else None
        scans.append(Scan(f"s{i}", write(folder / f"{i}.nii", data), mask, "train"))
    return scans


@pytest.fixture(scope="module")
def whole(scans, tmp_path_factory):
    """The store of one process."""
    return build_store(tmp_path_factory.mktemp("whole") / "set", scans, **HOW, workers=2).path


def assert_same(store, whole):
    """Every file to the bit, those too that name the scans, which lie beside both."""
    assert integrity.sums(store).keys() == integrity.sums(whole).keys()
    for name in integrity.sums(whole):
        assert (store / name).read_bytes() == (whole / name).read_bytes(), name
    assert sorted(p.name for p in store.iterdir()) == sorted(p.name for p in whole.iterdir())
    assert not list(store.parent.glob("*.partial")) and not list(store.parent.glob(".*"))


@settings(max_examples=6, deadline=None)
@given(count=st.integers(2, 9), seed=st.integers(0, 99))
def test_shards_in_any_order_give_the_store_of_one_process(
    tmp_path_factory, scans, whole, count, seed
):
    path = tmp_path_factory.mktemp("shards") / "set"
    numbers, done = list(range(1, count + 1)), set()
    random.Random(seed).shuffle(numbers)
    for number in numbers:
        shard = Shard(number, count)
        done.update(shard.share(len(scans)))
        store = build_store(path, scans, **HOW, workers=2, shard=shard)
        assert (store is None) == (len(done) < len(scans))
    assert_same(path, whole)


def test_a_background_that_was_set_to_0_is_told(tmp_path, capfd):
    scans = [
        Scan(f"s{level}", write(tmp_path / f"{level}.nii", brain() + level), None, "train")
        for level in (0, 7)
    ]
    store = build_store(tmp_path / "set", scans, **HOW, workers=1)
    (told,) = re.findall("warning: .*", capfd.readouterr().err)
    assert "7.nii: the background is nearly or throughout 7, it was set to 0" in told
    first, second = (store.images[store.scans == number] for number in range(2))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_shards_share_out_the_scans():
    for count, n in ((1, 5), (3, 7), (8, 3)):
        shares = [Shard(number, count).share(n) for number in range(1, count + 1)]
        assert sorted(number for share in shares for number in share) == list(range(n))


def test_missing_shards_are_named_at_the_merge_and_then_it_merges(tmp_path, scans, whole):
    path = tmp_path / "set"
    for number in (1, 3):
        assert build_store(path, scans, **HOW, workers=1, shard=Shard(number, 4)) is None
    pattern = (
        rf"shard 2/4: 2 scans not sliced, e\.g\. {re.escape(str(scans[1].image))}; "
        rf"run --shard=2/4; shard 4/4: 1 scans not sliced, e\.g\. .*3\.nii"
    )
    with pytest.raises(InputError, match=pattern):
        build_store(path, scans, **HOW, workers=1)
    job = building.plan_job(path, scans, HOW, 1)
    for number in (2, 4):  # they are killed before the merge
        shard = Shard(number, 4)
        building._slice(job, shard, journal.begin(path, shard), 1)
    before = (path.with_name("set.partial") / "images.npy").stat()
    build_store(path, scans, **HOW, workers=1)
    after = (path / "images.npy").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns), "not rewritten"
    assert_same(path, whole)


def test_shards_of_other_scans_or_settings_are_refused_and_those_of_one_process_discarded(
    tmp_path, scans, whole
):
    path = tmp_path / "set"
    build_store(path, scans, **HOW, workers=1, shard=Shard(1, 2))
    for other, how in ((scans, HOW | {"size": 13}), (scans[:-1], HOW), (scans[::-1], HOW)):
        for shard in (Shard(2, 2), None):
            with pytest.raises(
                InputError, match=r"set\.partial: holds what shards sliced of other"
            ):
                build_store(path, other, **how, workers=1, shard=shard)
    shutil.rmtree(path.with_name("set.partial"))
    job = building.plan_job(path, scans, HOW | {"offset": 2}, 1)
    building._prepare(job)
    building._slice(job, Shard(), journal.begin(path, Shard()), 1)
    build_store(path, scans, **HOW, workers=1)
    assert_same(path, whole)


def test_a_scan_that_changed_is_sliced_again_and_a_damaged_line_is_not_believed(tmp_path, scans):
    changed = Path(shutil.copy(scans[0].image, tmp_path / "changed.nii"))
    mine = [replace(scans[0], image=changed), *scans[1:]]
    path = tmp_path / "set"
    build_store(path, mine, **HOW, workers=1, shard=Shard(1, 2))
    assert journal.sliced(path, mine, HOW) == {0, 2, 4, 6}
    write(changed, brain((20, 24, 14), seed=99))
    assert journal.sliced(path, mine, HOW) == {2, 4, 6}
    notes = path.with_name("set.partial") / "work" / "1-of-2.jsonl"
    lines = notes.read_text().split("\n")
    mean = json.loads(lines[2])["record"]["mean"]
    lines[2] = lines[2].replace(f"{mean}", f"{mean + 1}")
    notes.write_text("\n".join(lines)[:-100])  # the last one is cut
    assert journal.sliced(path, mine, HOW) == {4}
    for number in (2, 1):
        build_store(path, mine, **HOW, workers=1, shard=Shard(number, 2))
    expected = build_store(tmp_path / "other", mine, **HOW, workers=1)
    assert_same(path, expected.path)


def test_killed_shards_resume_where_they_were(tmp_path, scans, whole):
    """Two shards at once, killed by SIGKILL after their first scans, then started again."""
    path = tmp_path / "set"
    script = f"""
import json, sys, time
from pathlib import Path
from cradl_jax.data.scans.layouts import Scan
from cradl_jax.data.slices import building
scans = [Scan(a, Path(b), c and Path(c), d) for a, b, c, d in json.loads(sys.argv[2])]
read = building.read_scan
def slow(*arguments):
    time.sleep(0.3)
    return read(*arguments)
building.read_scan = slow
building.build_store(
    Path({str(path)!r}), scans, **{HOW!r}, workers=1,
    shard=building.Shard(int(sys.argv[1]), 2),
)
"""
    listed = json.dumps([(s.subject, str(s.image), s.mask and str(s.mask), s.split) for s in scans])
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(number), listed], cwd=REPOSITORY)
        for number in (1, 2)
    ]
    try:
        deadline = time.monotonic() + 60
        while len(journal.lines(path, scans)) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        for process in processes:
            process.kill()
            assert process.wait() == -signal.SIGKILL
    done = journal.sliced(path, scans, HOW)
    assert 3 <= len(done) < 7
    sliced = []
    original = building.read_scan
    try:
        building.read_scan = lambda scan, *more: sliced.append(scan) or original(scan, *more)
        for number in (2, 1):
            build_store(path, scans, **HOW, workers=1, shard=Shard(number, 2))
    finally:
        building.read_scan = original
    assert len(sliced) == 7 - len(done), "only what was not done is sliced again"
    assert_same(path, whole)


def test_shards_are_named_by_number_and_count():
    assert shard_named("3/8") == Shard(3, 8) and str(Shard(3, 8)) == "3/8"
    assert shard_named(None) is None
    for wrong in ("0/3", "4/3", "a/b", "3", "1/0", "-1/3", "1/3/5", "", "²/3"):
        with pytest.raises(InputError, match="--shard: expected i/n"):
            shard_named(wrong)
