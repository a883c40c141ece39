import shutil
import threading
import time

import jax
import numpy as np
import pytest

from cradl_jax.errors import InputError
from cradl_jax.models.encoder import Encoder
from cradl_jax.models.simclr import SimCLR
from cradl_jax.runs import checkpoints as module
from cradl_jax.runs.checkpoints import Checkpoints, read_best
from cradl_jax.storage.manifest import fingerprint
from tests.helpers.small_simclr import initial_state


def test_best_checkpoint_has_the_smallest_validation_loss(tmp_path):
    """A state saved between two epochs has none, and goes as soon as there is a later one."""
    state = initial_state()
    losses = [None, 3.0, 1.0, 2.0, None, 4.0]
    with Checkpoints(tmp_path) as checkpoints:
        for step, loss in enumerate(losses, start=1):
            variables = jax.tree.map(lambda x, s=step: x * 0 + s, state.variables)
            checkpoints.save(state.replace(step=state.step + step, variables=variables), loss)
    best = read_best(tmp_path, jax.eval_shape(lambda: state.variables))
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.best_step(), checkpoints.latest_step()) == (3, 6)
        assert sorted(checkpoints.manager.all_steps()) == [3, 6]
    assert all(np.all(np.asarray(leaf) == 3) for leaf in jax.tree.leaves(best))


def test_the_best_checkpoint_survives_a_later_one_within_an_epoch(tmp_path):
    state = initial_state()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state.replace(step=state.step + 1), 1.0)
        checkpoints.save(state.replace(step=state.step + 2), None)
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.best_step(), checkpoints.latest_step()) == (1, 2)


@pytest.mark.parametrize("lost", ["metrics", "variables", "_CHECKPOINT_METADATA", "*"])
def test_a_checkpoint_that_was_being_removed_is_never_taken(tmp_path, lost):
    """Of the first of three, by a process that was killed."""
    state, folder = initial_state(), tmp_path / "run" / "checkpoints"
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(state.replace(step=state.step + 1), 3.0)
    shutil.copytree(folder / "1", tmp_path / "1")
    with Checkpoints(tmp_path / "run") as checkpoints:
        for step, loss in ((2, 1.0), (3, 2.0)):
            checkpoints.save(state.replace(step=state.step + step), loss)
    assert not (folder / "1").exists()
    shutil.copytree(tmp_path / "1", folder / "1")
    for path in list((folder / "1").glob(lost)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert (checkpoints.best_step(), checkpoints.latest_step()) == (2, 3)
        checkpoints.save(state.replace(step=state.step + 4), None)
    assert sorted(path.name for path in folder.iterdir()) == ["2", "4"]


def test_a_run_without_a_whole_epoch_has_no_best_checkpoint(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(initial_state(), None)
    with pytest.raises(InputError, match="no checkpoint of a whole epoch"):
        read_best(tmp_path, jax.eval_shape(lambda: initial_state().variables))


def test_checkpoint_of_another_size_is_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(initial_state(), 1.0)
    other = SimCLR(Encoder(8, 16), (16, 8))
    template = jax.eval_shape(
        lambda: other.init(jax.random.key(0), np.zeros((1, 16, 16), np.float32))
    )
    with pytest.raises(InputError, match="config"):
        read_best(tmp_path, template)


def test_empty_run_has_no_best_checkpoint_and_is_left_as_it_is(tmp_path):
    with pytest.raises(InputError, match="train the run"):
        read_best(tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_saving_does_not_wait_for_the_fingerprint_but_a_whole_checkpoint_has_it(
    tmp_path, monkeypatch
):
    hashing, go_on = threading.Event(), threading.Event()

    def slow(tree):
        hashing.set()
        assert go_on.wait(100)
        return fingerprint(tree)

    monkeypatch.setattr(module, "fingerprint", slow)
    state = initial_state()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, 1.0)
        assert hashing.wait(100)
        time.sleep(0.5)
        assert not (checkpoints.folder / "0").exists()
        go_on.set()
        checkpoints.manager.wait_until_finished()
        assert (checkpoints.folder / "0").exists()
        jax.tree.map(np.testing.assert_array_equal, checkpoints.latest(state), state)


def test_a_fingerprint_that_fails_leaves_no_checkpoint(tmp_path, monkeypatch):
    def failing(tree):
        raise MemoryError("no memory to hash")

    monkeypatch.setattr(module, "fingerprint", failing)
    with pytest.raises(MemoryError, match="to hash"), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(initial_state(), 1.0)
    assert not (tmp_path / "checkpoints" / "0").exists()
