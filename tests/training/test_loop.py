import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cradl_jax import augment, objectives
from cradl_jax.devices.parallel import AXIS, split_batch
from cradl_jax.errors import Diverged, InputError
from cradl_jax.models.encoder import Encoder
from cradl_jax.models.simclr import SimCLR
from cradl_jax.runs.checkpoints import Checkpoints, read_best
from cradl_jax.training import loop as training
from cradl_jax.training.loop import adam, create_state, steps_per_epoch, train

MODEL = SimCLR(Encoder(4, 16, axis_name=AXIS), (16, 8))
VIEW = augment.views(mirroring=0.5, shift=0.1, scale=(0.9, 1.2), rotation=0.1, noise=0.05)
OBJECTIVE = objectives.simclr(MODEL, VIEW, 0.5, AXIS)
OPTIMIZER = adam(3e-3, 1e-6, warmup_steps=2, total_steps=36)


@pytest.fixture(scope="module")
def slices():
    """Smooth random pictures, each unlike the others: contrast can be learned."""
    noise = np.random.default_rng(0).normal(size=(56, 4, 4)).astype(np.float32)
    return np.clip(np.kron(noise, np.ones((4, 4), np.float32)), -1.5, 1.5)


def initial_state():
    variables = jax.jit(MODEL.init)(jax.random.key(0), np.zeros((1, 16, 16), np.float32))
    return create_state(variables, OPTIMIZER)


def run(state, slices, epochs, devices):
    settings = {"epochs": epochs, "batch_size": 16, "seed": 3, "devices": devices}
    return list(train(state, OBJECTIVE, OPTIMIZER, slices[:48], slices[40:], **settings))


@pytest.fixture(scope="module")
def on_one_device(slices):
    return run(initial_state(), slices, 12, jax.devices()[:1])


def test_loss_falls_below_chance(on_one_device):
    chance = np.log(2 * 16 - 1)
    assert on_one_device[0].train["loss"] > on_one_device[-1].train["loss"]
    assert on_one_device[-1].val["loss"] < 0.9 * chance
    assert int(on_one_device[-1].state.step) == 36


def test_four_devices_train_as_one(slices, on_one_device):
    found = run(initial_state(), slices, 12, jax.devices())[-1]
    expected = on_one_device[-1]
    jax.tree.map(
        lambda e, f: np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-5),
        expected.state.variables,
        found.state.variables,
    )
    np.testing.assert_allclose(found.val["loss"], expected.val["loss"], rtol=1e-4)


def test_resumed_training_is_bit_identical(tmp_path, slices, on_one_device):
    devices = jax.devices()[:1]
    with Checkpoints(tmp_path) as checkpoints:
        for progress in train(
            initial_state(),
            OBJECTIVE,
            OPTIMIZER,
            slices[:48],
            slices[40:],
            epochs=12,
            batch_size=16,
            seed=3,
            devices=devices,
        ):
            if progress.val is not None:
                checkpoints.save(progress.state, progress.val["loss"])
            if int(progress.state.step) == 18:
                break
    with Checkpoints(tmp_path) as checkpoints:
        state = checkpoints.latest(initial_state())
    assert int(state.step) == 18
    found = run(state, slices, 12, devices)[-1].state
    jax.tree.map(np.testing.assert_array_equal, found, on_one_device[-1].state)


def test_training_continues_within_an_epoch_to_the_bit(tmp_path, slices, monkeypatch):
    monkeypatch.setattr(training, "LONGEST_CHUNK", 2)

    def chunks(state):
        settings = {"epochs": 2, "batch_size": 12, "seed": 3, "devices": jax.devices()[:1]}
        return train(state, OBJECTIVE, OPTIMIZER, slices[:48], slices[40:], **settings)

    whole = list(chunks(initial_state()))
    assert [int(chunk.state.step) for chunk in whole] == [2, 4, 6, 8]
    for number in (0, 2):
        with Checkpoints(tmp_path) as checkpoints:
            assert whole[number].val is None
            checkpoints.save(whole[number].state, None)
        with Checkpoints(tmp_path) as checkpoints:
            rest = list(chunks(checkpoints.latest(initial_state())))
        assert len(rest) == 3 - number
        jax.tree.map(np.testing.assert_array_equal, rest, whole[number + 1 :])


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


@pytest.mark.parametrize("annealing", [True, False])
@pytest.mark.parametrize("warmup", [0, 4])
def test_learning_rate_warms_up_and_then_stays_or_falls(warmup, annealing):
    """Under a gradient that stays the same Adam's step is the learning rate."""
    optimizer = adam(1e-2, 0.0, warmup, total_steps=12, annealing=annealing)
    params, gradient = {"bias": np.zeros(1, np.float32)}, {"bias": np.ones(1, np.float32)}
    state, found = optimizer.init(params), []
    for _ in range(12):
        updates, state = optimizer.update(gradient, state, params)
        found.append(-float(updates["bias"][0]))
    step = np.arange(12)
    falling = (1 + np.cos(np.pi * (step - warmup) / (12 - warmup))) / 2 if annealing else 1.0
    expected = 1e-2 * np.where(step < warmup, step / max(warmup, 1), falling)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)


def test_weight_decay_is_coupled_and_spares_biases():
    params = {"kernel": np.full((2, 2), 3.0, np.float32), "bias": np.full(2, 3.0, np.float32)}
    optimizer = adam(1e-2, 0.1, warmup_steps=0, total_steps=10)
    zero = jax.tree.map(np.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    # Adam's first step has length lr in the direction of the decayed gradient, whatever its size.
    np.testing.assert_allclose(updates["kernel"], -1e-2, rtol=1e-4)
    np.testing.assert_array_equal(updates["bias"], 0)


def test_learning_rate_warms_up_then_anneals():
    optimizer = adam(1.0, 0.0, warmup_steps=4, total_steps=20)
    params = np.ones((1, 1), np.float32)
    state, sizes = optimizer.init(params), []
    for _ in range(21):
        updates, state = optimizer.update(np.ones_like(params), state, params)
        sizes.append(-float(updates[0, 0]))
    expected = [step / 4 for step in range(4)]
    expected += [(1 + np.cos(np.pi * step / 16)) / 2 for step in range(17)]
    np.testing.assert_allclose(sizes, expected, atol=2e-3)
    assert isinstance(optimizer, optax.GradientTransformation)


def test_batch_must_fit():
    with pytest.raises(InputError, match="does not divide over 4 devices"):
        split_batch(np.zeros((3, 10)), jax.devices())
    with pytest.raises(InputError, match="larger than the training set of 7 slices"):
        steps_per_epoch(7, 8)


def test_validation_needs_a_slice_for_each_device(slices):
    with pytest.raises(InputError, match="for each of 4 devices, found 3"):
        next(
            train(
                initial_state(),
                OBJECTIVE,
                OPTIMIZER,
                slices,
                slices[:3],
                epochs=1,
                batch_size=16,
                seed=0,
                devices=jax.devices(),
            )
        )


def diverging(objective, images, variables, seed=3):
    """What training raises, with batches of 16 of 48 slices in chunks of three steps."""
    optimizer = adam(1e-3, 0.0, warmup_steps=0, total_steps=6)
    chunks = train(
        create_state(variables, optimizer),
        objective,
        optimizer,
        images,
        images[:16],
        epochs=2,
        batch_size=16,
        seed=seed,
        devices=jax.devices()[:1],
    )
    with pytest.raises(Diverged) as raised:
        list(chunks)
    batches = np.random.default_rng([seed, 0]).permutation(48).reshape(3, 16)
    return raised.value, batches


def slope(variables, images, keys, training):
    """A loss whose value or gradient is not finite for some means of a batch."""
    loss = jnp.sqrt(variables["params"]["w"].sum() * jnp.square(images).mean())
    return loss, (variables["batch_stats"], {})


SLOPE = {"params": {"w": np.ones((2, 2), np.float32)}, "batch_stats": {}}


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_loss_that_is_not_finite_names_its_step_and_slices(failing):
    images = np.ones((48, 4, 4), np.float32)
    batch = np.random.default_rng([3, 0]).permutation(48).reshape(3, 16)[failing]
    images[batch[5]] = np.nan
    fault, batches = diverging(slope, images, SLOPE)
    assert fault.step == failing + 1 and "loss of nan" in str(fault)
    np.testing.assert_array_equal(np.sort(fault.rows), np.sort(batches[failing]))


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_gradient_that_is_not_finite_names_its_step_and_slices(failing):
    """The loss of a batch of zeros is 0, its gradient is infinite."""
    images = np.ones((48, 4, 4), np.float32)
    images[np.random.default_rng([3, 0]).permutation(48).reshape(3, 16)[failing]] = 0
    fault, batches = diverging(slope, images, SLOPE)
    assert fault.step == failing + 1 and "gradient" in str(fault)
    np.testing.assert_array_equal(np.sort(fault.rows), np.sort(batches[failing]))


def test_a_validation_loss_that_is_not_finite_is_named():
    def in_validation(variables, images, keys, training):
        loss, rest = slope(variables, images, keys, training)
        return loss if training else loss / 0, rest

    fault, _ = diverging(in_validation, np.ones((48, 4, 4), np.float32), SLOPE)
    assert fault.step == 3 and "validation" in str(fault) and not len(fault.rows)
