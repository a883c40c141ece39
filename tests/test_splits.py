from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cradl_jax.data.layouts import Scan
from cradl_jax.data.splits import assign_splits, subject_faults
from cradl_jax.errors import InputError


def scan(subject, number=0, split=None, folder="/data"):
    return Scan(subject, Path(f"{folder}/{subject}/{number}.nii"), None, split)


SESSIONS = [scan(f"s{i:03d}", session) for i in range(40) for session in range(1 + i % 3)]


def subjects(scans, split):
    return {scan.subject for scan in scans if scan.split == split}


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
    ],
)
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(InputError, match="splits: expected"):
        assign_splits(SESSIONS, counts, 0)


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
