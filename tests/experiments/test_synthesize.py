"""HCP Synth. from scans on disk: who is held out, what changes in a scan, and the way to slices."""

import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from threadpoolctl import threadpool_limits

from configs import hcp
from cradl_jax.data.scans.layouts import find_scans
from cradl_jax.data.slices.preprocess import slice_volume
from cradl_jax.data.slices.store import anomalous
from cradl_jax.data.synthetic import anomalies
from cradl_jax.errors import InputError
from experiments import synthesize
from experiments.study import data_sets, preprocessing, synthesis
from tests.helpers import commands
from tests.helpers.scans import brain, head, write

SHAPE, SPACING = (48, 58, 48), 3.5  # a brain of 1.7 liters
AFFINE = np.diag([-SPACING, SPACING, SPACING, 1.0])  # LAS, as HCP
AFFINE[:3, 3] = 84, -100, -84
SUBJECTS = [str(100000 + 101 * i) for i in range(9)]
SMALL = {
    "data.size": 32,
    "data.sets.healthy.splits.held_out": 4,
    "data.sets.healthy.splits.val": 0.4,
    "data.sets.synth.splits.val": 2,
    "data.sets.synth.splits.test": 2,
    "data.sets.isles.splits.val": 1,
    "data.sets.brats.splits.val": 1,
}


@pytest.fixture(scope="module")
def distributed(tmp_path_factory):
    """HCP, ISLES 2015 and BraTS 2017 as they are distributed, with few and coarse scans."""
    root = tmp_path_factory.mktemp("distributed")
    for i, subject in enumerate(SUBJECTS):
        path = root / "HCP" / subject / "T1w" / "T2w_acpc_dc_restore_brain.nii.gz"
        write(path, brain(SHAPE, seed=i), AFFINE)
    small, affine = (20, 24, 26), np.diag([7.0, 7.0, 7.0, 1.0])
    for i in range(3):
        scan, lesion = brain(small, seed=50 + i), (brain(small) > 145).astype(np.int16)
        case = root / "ISLES2015" / "SISS" / "Training" / str(i + 1)
        for name, data in (("MR_T2.7061", scan), ("OT.7062", lesion)):
            stem = f"VSD.Brain.XX.O.{name}{i}"
            write(case / stem / f"{stem}.nii", data, affine)
        name = f"Brats17_CBICA_{i}_1"
        for suffix, data in (("t2", scan.astype(np.int16)), ("seg", lesion), ("t1", scan)):
            write(root / "BraTS2017" / "HGG" / name / f"{name}_{suffix}.nii.gz", data, affine)
    return root


@pytest.fixture
def root(distributed, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(distributed, tmp_path / "data"))


def small_config(root: Path, **settings) -> ConfigDict:
    config = hcp.get_config()
    config.data.root = str(root)
    config.data.workers = 2
    config.update_from_flattened_dict(SMALL | settings)
    return config


def command(module: str, root: Path, workdir: Path, *arguments: str):
    overrides = {"data.root": root, "data.workers": 2} | SMALL
    settings = [f"--config.{name}={value}" for name, value in overrides.items()]
    paths = "--config=configs/hcp.py", f"--workdir={workdir}"
    return commands.run(module, *paths, *settings, *arguments)


def split_of(workdir: Path, name: str) -> dict[str, str]:
    header, *rows = (workdir / "splits" / f"{name}.csv").read_text().splitlines()
    assert header == "subject,split" and rows == sorted(rows)
    return dict(row.split(",") for row in rows)


def test_from_the_distributed_folders_to_four_stores(root, tmp_path):
    """The commands of the README, as a user would give them."""
    run = tmp_path / "run"
    made = command("synthesize", root, run)
    assert made.returncode == 0, made.stderr
    assert "HCP_Synth: 2 test, 2 val" in made.stdout
    sliced = command("preprocess", root, run)
    assert sliced.returncode == 0, sliced.stderr

    opened = data_sets.stores(small_config(root), run)
    assert list(opened) == ["healthy", "synth", "isles", "brats"]
    stack = int(SHAPE[2] * SPACING / hcp.HCP_SLICE_MM)
    for name, splits, slices in (
        ("healthy", {"train": 3, "val": 2}, stack - 40),
        ("synth", {"val": 2, "test": 2}, stack - 20),
        ("isles", {"val": 1, "test": 2}, 26 - 20),
        ("brats", {"val": 1, "test": 2}, 26 - 20),
    ):
        for split, scans in splits.items():
            assert len(opened[name].rows(split)) == scans * slices, (name, split)
        assert bool(opened[name].masks.any()) == (name != "healthy")

    healthy, synth = split_of(run, "healthy"), split_of(run, "synth")
    assert set(healthy) == set(SUBJECTS)
    held_out = {f"sub-{subject}" for subject, split in healthy.items() if split == "held_out"}
    assert held_out == set(synth) and len(held_out) == 4
    assert not held_out & {f"sub-{subject}" for subject in opened["healthy"].subjects}


def test_scans_that_are_there_are_kept_and_lost_ones_come_back_the_same(root, tmp_path, capsys):
    config = small_config(root)
    synthesize.main(config, tmp_path)
    scans = find_scans(root / "HCP_Synth", "bids")
    before = {scan.image: scan.image.read_bytes() for scan in scans}
    times = {path: path.stat().st_mtime_ns for path in before}
    lost, *kept = before
    lost.unlink()
    synthesize.main(config, tmp_path)
    assert {path: path.read_bytes() for path in before} == before
    assert all(path.stat().st_mtime_ns == times[path] for path in kept)
    assert not list((root / "HCP_Synth").rglob("*partial*"))
    capsys.readouterr()
    synthesize.main(config, tmp_path)
    assert capsys.readouterr() == (f"{root / 'HCP_Synth'}: 2 test, 2 val\n", "")


def test_every_subject_gets_an_object_of_its_own_that_depends_on_it_alone():
    drawn = {
        jax.random.key_data(synthesis.subject_key(seed, subject)).tobytes()
        for seed in (0, 1)
        for subject in SUBJECTS
    }
    assert len(drawn) == 2 * len(SUBJECTS)


def test_prevalences_in_hcps_field_of_view_are_those_of_table_1():
    """20.5 % of slices and 0.65 % of voxels of the test set, 19.8 % and 0.77 % of validation."""
    spacing_mm = (3.5, 3.5, 2.6)
    counts = [round(n * 0.7 / s) for n, s in zip((260, 311, 260), spacing_mm, strict=True)]
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(counts, spacing_mm, strict=True)]
    head = sum((x / r) ** 2 for x, r in zip(np.ix_(*axes), (68, 84, 66), strict=True)) < 1
    volume = np.where(head, np.random.default_rng(0).uniform(400, 600, head.shape), 0)
    slices, voxels, how = [], [], data_sets.slicing(hcp.get_config(), "synth")
    for subject in range(49):
        key = synthesis.subject_key(0, str(subject))
        data, mask = jax.device_get(anomalies.paste_object(key, volume, head, spacing_mm))
        with threadpool_limits(limits=1, user_api="blas"):
            cut = slice_volume(data, head, mask, spacing_mm, **how)
        assert len(cut.images) == 145
        slices.append(anomalous(cut.masks).mean())
        voxels.append(cut.masks.mean())
    assert np.mean(slices) == pytest.approx(0.20, abs=0.03)
    assert np.mean(voxels) == pytest.approx(0.0065, abs=0.0012)


def test_another_seed_is_refused_and_cannot_leak(root, tmp_path):
    synthesize.main(small_config(root), tmp_path / "run")
    other = command("synthesize", root, tmp_path / "run", "--config.data.seed=5")
    assert other.returncode == 2
    assert other.stderr.splitlines()[-1].startswith(f"error: {root / 'HCP_Synth'}: was made with")
    assert "seed" in other.stderr and "config.data.sets.synth.path" in other.stderr

    with pytest.raises(InputError) as caught:
        preprocessing.preprocess(small_config(root, **{"data.seed": 5}), tmp_path / "run")
    assert re.search(
        r"data set 'synth' \(.*_T2w\.nii\.gz\): expected subjects held out of 'healthy', found "
        r"\d \(1\d+.*experiments\.synthesize",
        str(caught.value),
    )
    assert not (tmp_path / "run").exists()


def test_a_held_out_subject_in_healthy_validation_is_a_leak_too(root, tmp_path):
    """Even in the same split, which data sets may otherwise share subjects in."""
    synthesize.main(small_config(root), tmp_path)
    scans = find_scans(root / "HCP_Synth", "bids")
    of_val = next(scan.subject for scan in scans if scan.split == "val").removeprefix("sub-")
    preprocessing.preprocess(small_config(root), tmp_path / "run")
    listed = tmp_path / "run" / "splits" / "healthy.csv"
    moved = tmp_path / "moved.csv"
    moved.write_text(listed.read_text().replace(f"{of_val},held_out", f"{of_val},val"))
    config = small_config(root, **{"data.sets.healthy.split_file": str(moved)})
    with pytest.raises(InputError, match=rf"held out of 'healthy', found 1 \({of_val}\)"):
        preprocessing.preprocess(config, tmp_path / "other")


def test_surplus_scans_are_held_out_and_not_used(root, tmp_path):
    """894 of more than 992: counts for training and validation, the rest held out."""
    counts = {"train": 2, "val": 1.0, "held_out": -1}
    settings = {f"data.sets.healthy.splits.{name}": count for name, count in counts.items()}
    config = small_config(root, **settings)
    synthesize.main(config, tmp_path)
    assert len(find_scans(root / "HCP_Synth", "bids")) == 4
    preprocessing.preprocess(config, tmp_path / "run")
    found = sorted(split_of(tmp_path / "run", "healthy").values())
    assert found == ["held_out"] * 6 + ["train"] * 2 + ["val"]


def test_lists_of_splits_serve_both_commands(root, tmp_path):
    """A run's own lists, with another seed, give its splits again."""
    synthesize.main(small_config(root), tmp_path)
    preprocessing.preprocess(small_config(root), tmp_path / "run")
    lists = {
        f"data.sets.{name}.split_file": str(tmp_path / "run" / "splits" / f"{name}.csv")
        for name in ("healthy", "synth", "isles", "brats")
    }
    config = small_config(root, **lists, **{"data.seed": 7})
    preprocessing.preprocess(config, tmp_path / "again")
    for name in config.data.sets:
        assert split_of(tmp_path / "again", name) == split_of(tmp_path / "run", name)
    config.data.sets.synth.path = "HCP_Synth_2"
    synthesize.main(config, tmp_path)
    first, second = (find_scans(root / name, "bids") for name in ("HCP_Synth", "HCP_Synth_2"))
    assert [(s.subject, s.split) for s in first] == [(s.subject, s.split) for s in second]
    assert first[0].image.read_bytes() != second[0].image.read_bytes()


def test_missing_and_too_few_scans_are_named(root, tmp_path):
    for settings, pattern in (
        ({"data.root": str(tmp_path / "no")}, r"no: expected the folder of the data sets"),
        ({"data.sets.healthy.path": "gone"}, r"data set 'healthy': .*gone: .*no such path"),
        ({"data.sets.healthy.splits.held_out": 98}, r"'healthy': .*at least 99.*found 9"),
        ({"data.sets.synth.splits.val": 49}, r"'synth', made from 'healthy': .*51.*found 4"),
        ({"data.sets.healthy.splits.held_out": 0}, r"held out for 'synth', found none"),
        ({"data.sets.synth.made_from": "hcp"}, r"synth\.made_from: .*found 'hcp'"),
    ):
        with pytest.raises(InputError, match=pattern):
            synthesize.main(small_config(root, **settings), tmp_path)
    with pytest.raises(InputError, match=r"HCP_Synth: .*no such path.*experiments\.synthesize"):
        preprocessing.preprocess(small_config(root), tmp_path / "run")
    assert not (root / "HCP_Synth").exists()
    config = small_config(root)
    del config.data.sets["synth"]
    with pytest.raises(InputError, match="made_from"):
        synthesize.main(config, tmp_path)
    done = command("synthesize", tmp_path / "no", tmp_path / "run")
    assert done.returncode == 2 and done.stderr.startswith(f"error: {tmp_path / 'no'}: expected")


def test_folders_of_others_and_bad_scans_are_refused(root, tmp_path):
    synth = root / "HCP_Synth"
    write(synth / "sub-1" / "anat" / "sub-1_T2w.nii.gz", brain())
    with pytest.raises(InputError, match="HCP_Synth: expected nothing or what this command made"):
        synthesize.main(small_config(root), tmp_path)
    shutil.rmtree(synth)
    for subject in SUBJECTS:
        write(root / "HCP" / subject / "T1w" / "T2w_acpc_dc_restore_brain.nii.gz", head())
    with pytest.raises(InputError, match=r"4 faults(.|\n)*expected a brain-extracted scan"):
        synthesize.main(small_config(root), tmp_path)
    assert not list(synth.rglob("*.nii.gz"))
    write(root / "HCP" / SUBJECTS[0] / "T2w_acpc_dc_restore_brain.nii.gz", brain(SHAPE), AFFINE)
    config = small_config(root, **{"data.sets.healthy.splits.held_out": 7})
    config.data.sets.healthy.splits.val = 1
    with pytest.raises(InputError, match=f"{SUBJECTS[0]}.*: expected one file of a scan, found"):
        synthesize.main(config, tmp_path)
