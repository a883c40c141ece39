"""The README's section on methods of one's own, run as printed on a small study."""

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from cradl_jax.evaluation import results
from cradl_jax.postprocess import postprocess
from experiments.study import data_sets, preprocessing, stored_maps
from tests.helpers import commands
from tests.helpers.tiny_study import tiny_config, write_scans

SECTION = "## Add your own method\n"
CONFIG = "from tests.helpers.tiny_study import tiny_config as get_config\n"


def blocks(language):
    page = (commands.REPOSITORY / "experiments" / "README.md").read_text()
    section = page.split(SECTION)[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.S)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the slices of a study in runs/phantom, its scans named as the phantom's."""
    place = tmp_path_factory.mktemp("own")
    (place / "phantom.py").write_text(CONFIG)
    data = place / "runs" / "phantom" / "data"
    write_scans(data)
    for path in data.glob("*[0-9].nii.gz"):
        path.rename(data / f"sub-{path.name.removesuffix('.nii.gz')}_T2w.nii.gz")
    for path in data.glob("*.csv"):
        path.write_text(re.sub(r",([\w-]+\d)\.nii\.gz,", r",sub-\1_T2w.nii.gz,", path.read_text()))
    preprocessing.preprocess(tiny_config(), data.parent)
    return place


def run_block(code, place):
    before = Path.cwd()
    os.chdir(place)
    try:
        exec(code, {"__name__": "block"})
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def study(place):
    """The study with the maps of both methods, evaluated by the commands as printed."""
    for code in blocks("python"):
        run_block(code, place)
    lines = "".join(blocks("bash")).splitlines()
    evaluations = [shlex.split(line)[2:] for line in lines if "evaluate_maps" in line]
    assert [module for module, *_ in evaluations] == ["experiments.evaluate_maps"] * 2
    workdir = place / "runs" / "phantom"
    for _, *flags in evaluations:
        flags = [flag.replace("--maps=", f"--maps={place}/") for flag in flags]
        flags = [flag.replace("configs/", f"{place}/") for flag in flags]
        ended = commands.run("evaluate_maps", *flags, f"--workdir={workdir}")
        assert ended.returncode == 0, ended
        assert "sub-healthy-train0_T2w.nii.gz" in ended.stdout.split("of no scan that is")[1]
    return workdir


def test_both_methods_are_measured_at_every_level(study):
    for method in ("intensity", "difference"):
        rows = results.read_csv(study / "seed0" / method / "evaluation" / "results.csv")
        measured = {(row.level, row.score, row.split) for row in rows if row.metric == "auprc"}
        names = (("slice", "maximum"), ("voxel", "map"))
        assert measured == {(*name, split) for name in names for split in ("val", "test")}


def test_the_scorers_maps_are_those_on_the_slices_but_for_resampling(study):
    opened = data_sets.stores(tiny_config(), study)
    mean = opened["healthy"].images[opened["healthy"].rows("train")].mean(0)
    store = opened["lesion"]
    rows = store.rows("test")
    brains = store.brains[rows]
    expected = np.asarray(postprocess(np.abs(store.images[rows] - mean), brains))
    found = stored_maps.read(study / "seed0" / "difference").heatmaps_of(store, rows)
    error = np.abs(found - expected)[brains]
    assert np.corrcoef(found[brains], expected[brains])[0, 1] > 0.98
    assert np.median(error) < 0.02 * expected[brains].mean()


def test_the_section_writes_our_maps_by_a_flag():
    *_, words = (shlex.split(line)[2:] for line in "".join(blocks("bash")).splitlines())
    assert words == ["experiments.evaluate", "--config=configs/phantom.py", "--maps"]
