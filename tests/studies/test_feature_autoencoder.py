"""A feature autoencoder of a trained encoder: a run of its own, that says whose encoder it has."""

import shutil

import jax
import numpy as np
import pytest

import cradl_jax
from cradl_jax.models.fae import FROZEN
from cradl_jax.runs import checkpoints, verification
from cradl_jax.runs.folder import read_variables
from cradl_jax.storage.manifest import read_manifest
from experiments import evaluate, reproduce
from experiments.study import data_sets, report, runs, stages, training
from tests.helpers import exports
from tests.helpers.refusals import refusal
from tests.helpers.tiny_study import tiny_config


@pytest.fixture(scope="module")
def config():
    config = tiny_config()
    config.seeds, config.methods = (0,), ("fae",)
    with config.unlocked():
        config.overrides.fae.train = {"epochs": 2, "warmup_epochs": 1, "batch_size": 32}
    return config


def test_a_run_holds_the_encoder_and_names_it(workdir):
    cradl, fae = (workdir / "seed0" / method for method in ("cradl", "fae"))
    trained, own = read_variables(cradl), read_variables(fae)
    for name in ("params", "batch_stats"):
        expected = trained[name]["encoder"]
        jax.tree.map(np.testing.assert_array_equal, own[FROZEN]["weights"][name], expected)
    named = read_manifest(fae)["settings"]["encoder"]
    assert named == checkpoints.read_fingerprint(cradl)


def test_an_exported_run_needs_no_other_and_gives_the_same_to_the_bit(workdir, tmp_path):
    folder, scan = workdir / "seed0" / "fae", workdir / "data" / "lesion-test1.nii.gz"
    assert not [check for check in verification.checks(folder) if check.faults]
    run = cradl_jax.load_run(shutil.copytree(folder, tmp_path / "run"))
    assert run.scores == run.heatmaps == ["rec", "rec_scan"]
    exports.check(run, scan, tmp_path / "fae.safetensors")


def test_tables_of_the_paper_do_not_choose_it(config, workdir):
    page = report.write(config, workdir).read_text()
    tables = (workdir / "tables.md").read_text()
    assert "FAE" not in tables[tables.index("(as Table 2)") : tables.index("(as Table 3)")]
    assert "| lesion | FAE | " in tables and "| FAE | Autoencoder | " in tables
    assert "Beyond the paper, FAE reconstructs features of CRADL" in page
    assert "restore slices from corruptions" not in page


def test_another_encoder_is_refused_and_a_missing_one_named(config, workdir, tmp_path):
    healthy = data_sets.stores(config, workdir)["healthy"]
    other = config.copy_and_resolve_references()
    other.train.learning_rate *= 2  # of CRADL's run too
    assert "cradl: was made with different settings" in refusal(
        runs.check, other, workdir, "fae", healthy
    )
    (tmp_path / "slices").symlink_to(workdir / "slices")
    message = refusal(training.fit, config, tmp_path, "fae", False)
    assert f"fae needs the encoder of cradl, seed 0, found no finished run in {tmp_path}" in message
    assert "run python -m experiments.simclr --config.methods=cradl --config.seed=0" in message
    assert not (tmp_path / "seed0" / "fae").exists()


@pytest.mark.parametrize("command", [evaluate, reproduce])
def test_an_encoder_that_nothing_trains_is_named_before_scans_are_sliced(
    config, workdir, tmp_path, command
):
    (tmp_path / "data").symlink_to(workdir / "data")
    message = refusal(command.main, config, tmp_path)
    assert f"fae needs the encoder of cradl, seed 0, found no finished run in {tmp_path}" in message
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_encoder_is_trained_first_and_a_new_one_makes_the_run_stale(config, study, tmp_path):
    both = config.copy_and_resolve_references()
    both.methods = ("fae", "cradl")
    both.train.update({"epochs": 1, "warmup_epochs": 0, "batch_size": 32})
    (tmp_path / "slices").symlink_to(study / "slices")
    stages.train_all(both, tmp_path, both.methods, resume=False)
    healthy = data_sets.stores(both, tmp_path)["healthy"]
    runs.check(both, tmp_path, "fae", healthy)
    both.train.epochs = 2
    stages.train_all(both, tmp_path, ("cradl",), resume=True)
    message = refusal(runs.check, both, tmp_path, "fae", healthy)
    assert "fae: was made with different settings (encoder: expected " in message
