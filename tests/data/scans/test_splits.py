import re
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cradl_jax.data.scans.layouts import Scan
from cradl_jax.data.scans.splits import (
    assign_splits,
    listed_splits,
    source_faults,
    subject_faults,
    write_splits,
)
from cradl_jax.errors import InputError


def scan(subject, number=0, split=None, folder="/data"):
    return Scan(subject, Path(f"{folder}/{subject}/{number}.nii"), None, split)


SESSIONS = [scan(f"s{i:03d}", session) for i in range(40) for session in range(1 + i % 3)]


def subjects(scans, split):
    return {scan.subject for scan in scans if scan.split == split}


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), order=st.permutations(SESSIONS))
def test_splits_are_drawn_by_subject_whatever_the_order(seed, order):
    counts = {"val": 8, "test": 0.25, "train": -1}
    scans = assign_splits(order, counts, seed)
    train, val, test = (subjects(scans, split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (22, 8, 10)
    assert not train & val and not train & test and not val & test
    assert [(s.subject, s.image) for s in scans] == [(s.subject, s.image) for s in order]
    assert set(scans) == set(assign_splits(SESSIONS, counts, seed))


def test_another_seed_gives_another_draw():
    draws = {frozenset(subjects(assign_splits(SESSIONS, {"val": 20, "test": -1}, seed), "val"))
             for seed in range(5)}  # fmt: skip
    assert len(draws) == 5


def test_splits_that_are_there_are_kept():
    fixed = [scan("s000", 7, "train"), *(scan(f"t{i}", 0, "test") for i in range(3))]
    scans = assign_splits(fixed + SESSIONS, {"val": 19, "test": 20}, 0)
    assert scans[:4] == fixed
    assert subjects(scans, "train") == {"s000"}
    assert len(subjects(scans, "val")) == 19
    assert assign_splits(fixed, {}, 0) == fixed


@pytest.mark.parametrize(
    "counts",
    [
        *({}, {"val": 20}, {"val": 41, "test": -1}, {"val": 40, "test": -1}),
        *({"val": -1, "test": -1}, {"dev": -1}, {"val": 1.5, "test": -1}, {"val": -2, "test": -1}),
        *({"val": "20", "test": -1}, {"val": 0.6, "test": 0.6}),
        *({"held_out": 41, "val": 0.1, "train": -1}, {"held_out": 38, "val": 2, "train": -1}),
        *({"held_out": -1, "val": 41}, {"held_out": -1, "val": -1}),
        *({"val": float("inf"), "test": -1}, {"val": float("nan"), "test": -1}),
    ],
)
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(InputError, match="splits: expected"):
        assign_splits(SESSIONS, counts, 0)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), val=st.floats(0.1, 0.9))
def test_who_is_held_out_depends_on_nothing_but_seed_and_number(seed, val):
    shared = assign_splits(SESSIONS, {"val": val, "train": -1, "held_out": 9}, seed)
    counted = assign_splits(SESSIONS, {"train": 28.0, "held_out": 9, "val": 3}, seed)
    rest = assign_splits(SESSIONS, {"train": 28, "held_out": -1.0, "val": 3.0}, seed)
    assert subjects(shared, "held_out") == subjects(counted, "held_out")
    assert counted == rest
    assert len(subjects(shared, "val")) == round(31 * val)  # a share of those that are used
    assert len(subjects(shared, "train")) == 31 - round(31 * val)


def test_the_draw_is_the_same_everywhere():
    """A hash of seed and name, not a generator that versions of a library may change."""
    drawn = assign_splits(SESSIONS, {"held_out": 4, "val": 0.1, "train": -1}, 0)
    names = sorted({s.subject for s in SESSIONS}, key=lambda s: blake2b(f"0/{s}".encode()).digest())
    assert subjects(drawn, "held_out") == set(names[:4]) == {"s001", "s012", "s013", "s039"}


def test_nobody_may_be_left_to_hold_out():
    assert {s.split for s in assign_splits(SESSIONS, {"val": 40, "held_out": -1}, 0)} == {"val"}


def test_a_list_gives_the_splits_that_were_written(tmp_path):
    path = tmp_path / "lists" / "healthy.csv"
    drawn = assign_splits(SESSIONS, {"held_out": 5, "val": 8, "train": -1}, 3)
    write_splits(path, drawn)
    header, *rows = path.read_text().splitlines()
    assert header == "subject,split" and rows == sorted(rows) and len(rows) == 40
    again = tmp_path / "again.csv"
    write_splits(again, assign_splits(SESSIONS[::-1], {"held_out": 5, "val": 8, "train": -1}, 3))
    assert again.read_bytes() == path.read_bytes()
    assert list(path.parent.iterdir()) == [path]
    assert listed_splits(SESSIONS, path) == (drawn, [])
    other = [scan(s.subject, split="test") for s in SESSIONS]
    assert subjects(listed_splits(other, path)[0], "test") == set()


def test_a_list_from_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes("\ufeffsubject , split,site\r\n1,val,x\r\nsub-2,held_out,y\r\n\r\n".encode())
    scans, faults = listed_splits([scan("sub-1"), scan("2"), scan("2", 1)], path)
    assert not faults and [s.split for s in scans] == ["val", "held_out", "held_out"]
    path.write_text("subject,split\n1,val\n2,test\n3,held_out\n")  # lost, and not needed
    assert listed_splits([scan("1"), scan("2")], path)[1] == []


def test_every_fault_of_a_list_is_named(tmp_path):
    path = tmp_path / "list.csv"
    rows = ["subject,split", "s000,val", "s001,dev", "s000,train", "t1,test", "t2,val"]
    path.write_text("\n".join(rows))
    _, faults = listed_splits(SESSIONS, path)
    for fault, pattern in zip(
        faults,
        (
            r"line 3: expected split held_out, train, val, test, found 'dev'; correct it",
            r"line 4: s000 was listed before; keep one row",
            r"a row for each of the 40 subjects.*found none for 38 \(s002, .*, \.\.\.\); add them",
            r"expected subjects of the data set, found 2 \(t1, t2\) that it lacks; remove",
        ),
        strict=True,
    ):
        assert fault.startswith(str(path)) and re.search(pattern, fault), fault
    with pytest.raises(InputError, match=r"none\.csv: expected a CSV file.*no such file"):
        listed_splits(SESSIONS, tmp_path / "none.csv")
    path.write_text("subject;split\ns000;val\n")
    with pytest.raises(InputError, match="subject, split missing"):
        listed_splits(SESSIONS, path)


def test_made_of_subjects_that_are_learned_from_is_named():
    source = [scan("1", 0, "train"), scan("2", 0, "val"), scan("3", 0, "held_out")]
    made = [scan(f"sub-{i}", 0, "val", "/synth") for i in (3, 4)]
    assert source_faults("synth", made, "healthy", source) == []
    (fault,) = source_faults("synth", [*made, scan("sub-2", 0, "val")], "healthy", source)
    assert "data set 'synth' (/data/sub-2/0.nii)" in fault and "found 1 (2)" in fault
    assert "experiments.synthesize" in fault


def test_people_of_separate_data_sets_may_share_names():
    one, other = [scan("sub-01", 0, "train")], [scan("sub-01", 0, "test", "/other")]
    third = [scan("sub-01", 0, "val", "/third")]
    (fault,) = subject_faults({"healthy": one, "other": other})
    assert fault.endswith("name its data set in --config.data.separate")
    assert subject_faults({"healthy": one, "other": other}, ["other"]) == []
    assert subject_faults({"healthy": one, "other": other}, ["healthy"]) == []
    (left,) = subject_faults({"healthy": one, "other": other, "third": third}, ["other"])
    assert "train of 'healthy'" in left and "val of 'third'" in left and "'other'" not in left

    both = [*other, scan("sub-01", 1, "val", "/other")]
    (within,) = subject_faults({"healthy": one, "other": both}, ["other"])
    assert "test of 'other'" in within and "val of 'other'" in within
    copied = [scan("sub-02", 0, "test"), Scan("sub-03", one[0].image, None, "test")]
    (image,) = subject_faults({"healthy": one, "other": copied}, ["other"])
    assert "/data/sub-01/0.nii (sub-01, sub-03): expected in one split" in image


def test_leaks_between_splits_are_named():
    clean = [scan("sub-1", 0, "train"), scan("sub-1", 1, "train"), scan("sub-2", 0, "val")]
    assert subject_faults({"healthy": clean, "synth": [scan("sub-2", 0, "val", "/synth")]}) == []

    (twice,) = subject_faults({"healthy": [*clean, scan("sub-1", 1, "train")]})
    assert "/data/sub-1/1.nii: expected once in data set 'healthy', found 2 times" in twice

    (within,) = subject_faults({"healthy": [*clean, scan("sub-2", 1, "train")]})
    assert "sub-2" in within and "val of 'healthy'" in within and "train of 'healthy'" in within

    (across,) = subject_faults({"healthy": clean, "synth": [scan("1", 0, "test", "/synth")]})
    assert "train of 'healthy' (/data/sub-1/0.nii), test of 'synth' (/synth/1/0.nii)" in across

    one, two = (Scan(name, Path("/data/x.nii"), None, "train") for name in "ab")
    (renamed,) = subject_faults({"healthy": [one, two]})
    assert "found 2 times (as a, b)" in renamed
    control = Scan("c", one.image, None, "test")
    (control,) = subject_faults({"healthy": [one], "lesion": [control]})
    assert "/data/x.nii (a, c)" in control and "test of 'lesion'" in control
