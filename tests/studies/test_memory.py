"""A memory of patches beside dense densities: fitted, reported, exported, verified, refused.

The study has no flow, and no distrax.
"""

import shutil
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

import cradl_jax
from cradl_jax import methods
from cradl_jax.densities import memory
from cradl_jax.errors import InputError
from cradl_jax.evaluation.results import read_csv, select_scores
from cradl_jax.runs import verification
from experiments import evaluate
from experiments.study import data_sets, fitting, pose, report, settings
from tests.helpers import exports
from tests.helpers.tiny_study import tiny_config

KEPT = 60


@pytest.fixture(scope="module")
def config():
    config = tiny_config()
    config.seeds, config.memory.size, config.flow.blocks = (0,), KEPT, 0
    return config


@pytest.fixture(scope="module", autouse=True)
def no_distrax(study):
    """Break distrax, which nothing needs but the flow, that of the study before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "distrax", None)
        yield


@pytest.fixture(scope="module")
def workdir(study, config):
    for part in ("densities", "thresholds"):
        shutil.rmtree(study / "seed0" / "cradl" / part)
    evaluate.main(config, study)
    return study


@pytest.fixture(scope="module")
def run(workdir):
    return cradl_jax.load_run(workdir / "seed0" / "cradl")


def test_it_keeps_patches_with_brain_of_training_slices(config, workdir, run):
    kept = run.contents.of_features["memory"]
    assert kept.vectors.shape == (KEPT, kept.projection.shape[1])
    healthy = data_sets.stores(config, workdir)["healthy"]
    rows = healthy.rows("train")
    features = methods.features_of(settings.network(config, "cradl"), "memory")(
        run.contents.variables, jnp.asarray(healthy.images[rows])
    )
    patches = np.asarray(memory.of_patches(kept.projection, features))
    inside = healthy.brains[rows].reshape(len(rows), 16, 2, 16, 2).any((2, 4))
    apart = cdist(kept.vectors, patches[inside])
    assert apart.min(1).max() < 1e-3, "each is the vector of a patch with brain"
    assert len(set(apart.argmin(1))) == KEPT


def test_it_is_chosen_beyond_the_paper_alone(config, workdir):
    report.write(config, workdir)
    rows = read_csv(workdir / "results.csv")
    assert {row.score for row in rows if row.method == "cradl"} == {"dense", "memory", "gmm1"}
    better = [row._replace(value=2.0) if row.score == "memory" else row for row in rows]
    chosen = select_scores(row for row in better if row.method == "cradl")
    for choice, score in chosen.items():
        assert (score == "memory") == (choice.comparison == "beyond")
    assert "| Memory of patches | Distance |" in (workdir / "tables.md").read_text()
    scorers = pose.chosen_scorers(config, workdir, data_sets.stores(config, workdir))
    names = [name for method, name in dict(scorers) if method == "cradl"]
    assert names == ["own", "dense", "memory"]


def test_an_exported_run_gives_the_same_to_the_bit_and_verifies(workdir, run, tmp_path):
    scan = workdir / "data" / "lesion-test1.nii.gz"
    assert not [check for check in verification.checks(workdir) if check.faults]
    by_memory = run.using("memory", "memory")
    exports.check(by_memory, scan, tmp_path / "run.safetensors")
    assert by_memory.predict(scan).scores.max() > 0


def test_a_memory_of_another_size_is_not_taken_for_this_one(config, workdir):
    other = config.copy_and_resolve_references()
    for size in (0, KEPT + 1):
        other.memory.size = size
        with pytest.raises(InputError, match="memory"):
            fitting.fit(other, workdir, "cradl")


def test_more_than_there_are_or_than_a_device_holds_is_refused(config, workdir, monkeypatch):
    other = config.copy_and_resolve_references()
    other.memory.size = 10**6
    shutil.rmtree(workdir / "seed0" / "cradl" / "densities")
    with pytest.raises(InputError, match=r"memory\.size: expected at most \d+, the patches of the"):
        fitting.fit(other, workdir, "cradl")
    monkeypatch.setattr(fitting, "room", lambda devices: 128_000_000)
    message = r"memory\.size: expected at most 10000, .*found 1000000 \(12\.8 GB\); choose"
    with pytest.raises(InputError, match=message):
        evaluate.main(other, workdir)


def test_what_is_drawn_does_not_depend_on_batches(config, workdir):
    healthy = data_sets.stores(config, workdir)["healthy"]
    rows = fitting.by_height(healthy, 32)
    components = np.random.default_rng(0).normal(size=(len(rows), 16, 16, 3)).astype(np.float32)
    whole, parts = (
        fitting.drawn(np.random.default_rng(0), np.split(components, cuts), healthy, rows, 5)
        for cuts in ([], [7, 20])
    )
    np.testing.assert_array_equal(whole, parts)
    assert len(whole) <= 5 * len(rows)
