"""A finished training goes on to more epochs, and its manifest tells."""

import json

import jax
import numpy as np
import pytest

from cradl_jax.errors import InputError
from cradl_jax.runs.checkpoints import Checkpoints, read_all
from cradl_jax.storage import integrity
from cradl_jax.storage.integrity import SUMS, is_complete
from cradl_jax.storage.manifest import read_manifest
from experiments.study import data_sets, preprocessing, training
from tests.helpers.tiny_study import tiny_config, write_scans

BATCH = 16


@pytest.fixture
def config(tmp_path):
    """Two epochs of a tiny study whose scans are sliced."""
    config = tiny_config()
    config.data.root = str(tmp_path / "data")
    config.train.update({"epochs": 2, "warmup_epochs": 1, "batch_size": BATCH})
    write_scans(tmp_path / "data")
    preprocessing.preprocess(config, tmp_path)
    return config


def test_a_finished_training_goes_on_to_more_epochs(config, tmp_path, capsys):
    run = tmp_path / "seed0" / "cradl"
    training.fit(config, tmp_path, "cradl", resume=False)
    healthy = data_sets.stores(config, tmp_path)["healthy"]
    before, setup = read_manifest(run), training.set_up(config, "cradl", healthy)
    epoch = len(healthy.rows("train")) // BATCH
    log = (run / "metrics.jsonl").read_text()
    with Checkpoints(run, create=False) as kept:
        at_two = kept.latest(setup.state)
        loss_at_two = kept.manager.metrics(kept.best_step())["val_loss"]

    config.train.epochs = 4
    with pytest.raises(InputError, match=r"different settings \(train\.epochs"):
        training.fit(config, tmp_path, "cradl", resume=False)
    config.train.learning_rate *= 2
    with pytest.raises(InputError, match=r"train\.epochs: .*train\.learning_rate: "):
        training.fit(config, tmp_path, "cradl", resume=True)
    config.train.learning_rate /= 2
    assert is_complete(run) and read_manifest(run) == before, "nothing was touched"

    capsys.readouterr()
    training.fit(config, tmp_path, "cradl", resume=True)
    assert "trained for 2 epochs, goes on to 4" in capsys.readouterr().out
    after = read_manifest(run)
    assert after["settings"]["train"]["epochs"] == 4
    assert after["before"] == [{k: before[k] for k in ("settings", "versions", "git_commit")}]
    assert (run / "metrics.jsonl").read_text().startswith(log)
    setup = training.set_up(config, "cradl", healthy)
    with Checkpoints(run, create=False) as kept:
        assert kept.latest_step() == 4 * epoch
        assert kept.manager.metrics(kept.best_step())["val_loss"] <= loss_at_two
        at_four = kept.latest(setup.state)
    assert len(read_all(run, setup.state.variables)) >= 1
    assert not [*integrity.faults(run)]

    # The schedule: what Adam moves a kernel by at the first step is the cosine of 4 epochs.
    ones = jax.tree.map(np.ones_like, at_two.variables["params"])
    moved, _ = setup.optimizer.update(ones, at_two.optimizer, at_two.variables["params"])
    still, _ = training.set_up(with_epochs(config, 2), "cradl", healthy).optimizer.update(
        ones, at_two.optimizer, at_two.variables["params"]
    )
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(still)) < 1e-12
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(moved)) > 1e-6
    kernels = (jax.tree.leaves(state.variables["params"]) for state in (at_two, at_four))
    assert any((one != other).any() for one, other in zip(*kernels, strict=True))


def test_an_unfinished_training_or_fewer_epochs_are_refused(config, tmp_path):
    run = tmp_path / "seed0" / "cradl"
    training.fit(config, tmp_path, "cradl", resume=False)
    sums, manifest = (run / SUMS).read_text(), json.loads((run / "manifest.json").read_text())
    with pytest.raises(InputError, match=r"train\.epochs: expected 1, found 2"):
        training.fit(with_epochs(config, 1), tmp_path, "cradl", resume=True)
    assert (run / SUMS).read_text() == sums
    (run / SUMS).unlink()
    with pytest.raises(InputError, match=r"train\.epochs: expected 4, found 2"):
        training.fit(with_epochs(config, 4), tmp_path, "cradl", resume=True)
    assert json.loads((run / "manifest.json").read_text()) == manifest
    training.fit(config, tmp_path, "cradl", resume=True)
    assert (run / SUMS).read_text() == sums


def with_epochs(config, epochs):
    other = config.copy_and_resolve_references()
    other.train.epochs = epochs
    return other
