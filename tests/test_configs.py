"""The studies of the paper: Section 4.1 and Table 1 in configs, and what the others change."""

import importlib
from pathlib import Path

import pytest

from configs import default, hcp, ixi, official, scans
from cradl_jax.data.scans.layouts import LAYOUTS, Scan
from cradl_jax.data.slices.preprocess import most_slices
from cradl_jax.errors import InputError
from experiments.study import data_sets

REPOSITORY = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.py"))


def flat(config, prefix="") -> dict:
    """Values by dotted path."""
    values = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        values |= flat(value, f"{path}.") if hasattr(value, "items") else {path: value}
    return values


def counted(name: str, number: int) -> dict[str, int]:
    """Subjects in each split of a data set of `number` scans."""
    cohort = [Scan(f"{i}", Path(f"{i}.nii"), None, None) for i in range(number)]
    config = hcp.get_config()
    splits = [scan.split for scan in data_sets.with_splits(config, name, cohort)[0]]
    return {split: splits.count(split) for split in set(splits)}


@pytest.mark.parametrize("name", NAMES)
def test_every_config_says_what_it_is_and_how_it_is_run(name):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config()
    assert module.__doc__
    assert name == "default" or f"--config=configs/{name}.py" in module.__doc__
    for settings in config.data.sets.values():
        assert settings.layout in LAYOUTS and settings.get("offset", 0) >= 0


def test_patients_join_the_open_study_by_name():
    sets = ixi.get_config("brats,mslub").data.sets
    assert list(sets) == ["healthy", "synth", "brats", "mslub"] and sets.mslub.path == "MSLUB"
    with pytest.raises(InputError, match="expected names of brats, isles, mslub, found 'hcp'"):
        ixi.get_config("brats,hcp")


def test_scans_are_shared_out_as_in_section_4_1():
    healthy = counted("healthy", 992)
    assert healthy == {"held_out": 98, "val": 89, "train": 805}
    assert healthy["val"] + healthy["train"] == 894
    assert counted("synth", 98) == {"val": 49, "test": 49}
    assert counted("isles", 28) == {"val": 8, "test": 20}
    assert counted("brats", 286) == {"val": 20, "test": 266}
    assert counted("brats", 285) == {"val": 20, "test": 265}


@pytest.mark.parametrize(
    ("name", "shape", "spacing_mm", "slices"),
    [
        ("synth", (260, 311, 260), 0.7, 145),
        ("healthy", (260, 311, 260), 0.7, 125),
        ("brats", (240, 240, 155), 1.0, 135),
        ("isles", (230, 230, 154), 1.0, 134),
        ("isles", (230, 230, 153), 1.0, 133),
    ],
)
def test_a_scan_has_the_slices_of_table_1(name, shape, spacing_mm, slices):
    """7105 = 49 x 145 and 35910 = 266 x 135; 2671 of 20 ISLES scans of 153 or 154."""
    how = data_sets.slicing(hcp.get_config(), name)
    assert how["size"] == 128 and how["span"] == "volume"
    assert most_slices(shape[2], spacing_mm, **how) == slices


def test_reports_know_the_names_of_the_paper():
    sets = hcp.get_config().data.sets
    named = {name: settings.paper for name, settings in sets.items() if name != "healthy"}
    assert named == {"synth": "HCP Synth.", "isles": "ISLES", "brats": "BraTS"}


def test_hcp_keeps_the_papers_settings():
    changed = flat(hcp.get_config())
    common = flat(default.get_config())
    sets = {path for path in changed if path.startswith("data.sets.")}
    others = {path: changed[path] for path in changed.keys() - sets}
    assert others == common | {
        "data.span": "volume",
        "data.field_mm": 217.7,
        "data.detrend": False,
    }


def test_official_changes_three_settings_of_the_default():
    ours, theirs = flat(hcp.get_config()), flat(official.get_config())
    assert ours.keys() == theirs.keys()
    differing = {path: theirs[path] for path in ours if ours[path] != theirs[path]}
    assert differing == {
        "methods": ("cradl",),
        "augment.mirror": 0.0,
        "train.warmup_epochs": 5,
        "gmm.tolerance": 0.01,
    }
    assert differing.keys() <= flat(default.get_config()).keys()


def test_own_scans_come_with_the_papers_settings():
    changed, common = flat(scans.get_config()), flat(default.get_config())
    added = {"data.healthy", "data.anomalous", "data.offset"}
    assert changed.keys() - common.keys() == added
    assert {path: changed[path] for path in common} == common
