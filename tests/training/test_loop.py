import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cradl_jax.devices.parallel import split_batch
from cradl_jax.errors import Diverged, InputError
from cradl_jax.runs.checkpoints import Checkpoints
from cradl_jax.training import loop
from cradl_jax.training.loop import steps_per_epoch, train
from cradl_jax.training.steps import adam, create_state, train_chunk
from tests.helpers.small_simclr import OBJECTIVE, OPTIMIZER, initial_state


@pytest.fixture(scope="module")
def slices():
    """Smooth random pictures, each unlike the others: contrast can be learned."""
    noise = np.random.default_rng(0).normal(size=(56, 4, 4)).astype(np.float32)
    return np.clip(np.kron(noise, np.ones((4, 4), np.float32)), -1.5, 1.5)


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
    last = run(initial_state(), slices, 12, jax.devices())[-1]
    expected = on_one_device[-1]
    jax.tree.map(
        lambda e, f: np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-5),
        expected.state.variables,
        last.state.variables,
    )
    np.testing.assert_allclose(last.val["loss"], expected.val["loss"], rtol=1e-4)


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
    resumed = run(state, slices, 12, devices)[-1].state
    jax.tree.map(np.testing.assert_array_equal, resumed, on_one_device[-1].state)


def test_training_continues_within_an_epoch_to_the_bit(tmp_path, slices, monkeypatch):
    monkeypatch.setattr(loop, "LONGEST_CHUNK", 2)

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
    assert [*fault.steps] == [failing + 1] and "loss of nan" in str(fault)
    np.testing.assert_array_equal(np.sort(fault.rows), np.sort(batches[failing]))


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_gradient_that_is_not_finite_names_its_step_and_slices(failing):
    """The loss of a batch of zeros is 0, its gradient is infinite."""
    images = np.ones((48, 4, 4), np.float32)
    images[np.random.default_rng([3, 0]).permutation(48).reshape(3, 16)[failing]] = 0
    fault, batches = diverging(slope, images, SLOPE)
    assert [*fault.steps] == [failing + 1] and "gradient" in str(fault)
    np.testing.assert_array_equal(np.sort(fault.rows), np.sort(batches[failing]))


def test_a_term_that_is_not_finite_names_its_step_and_slices():
    """Though the loss, which has no part in it, is finite."""

    def with_term(variables, images, keys, training):
        loss, (stats, _) = slope(variables, images, keys, training)
        return loss, (stats, {"kl": jnp.log(3 - images.max())})

    images = np.ones((48, 4, 4), np.float32)
    images[np.random.default_rng([3, 0]).permutation(48)[20]] = 3
    fault, batches = diverging(with_term, images, SLOPE)
    assert [*fault.steps] == [2] and "found a kl of -inf" in str(fault)
    np.testing.assert_array_equal(fault.rows, batches[1])


def test_a_fault_that_does_not_come_again_names_every_step_and_slice_of_the_chunk(monkeypatch):
    def faulty(objective, optimizer):
        run_chunk = train_chunk(objective, optimizer)

        def run(state, data, rows, key):
            state, terms, finite = run_chunk(state, data, rows, key)
            return state, {"loss": terms["loss"] + (np.nan if len(rows) > 1 else 0)}, finite

        return run

    monkeypatch.setattr(loop, "train_chunk", faulty)
    fault, batches = diverging(slope, np.ones((48, 4, 4), np.float32), SLOPE)
    assert [*fault.steps] == [1, 2, 3]
    assert "one of steps 1 to 3: expected finite numbers, found a loss of nan" in str(fault)
    assert "repeated one by one" in str(fault)
    np.testing.assert_array_equal(fault.rows, batches.ravel())


def test_a_validation_loss_that_is_not_finite_is_named():
    def in_validation(variables, images, keys, training):
        loss, rest = slope(variables, images, keys, training)
        return loss if training else loss / 0, rest

    fault, _ = diverging(in_validation, np.ones((48, 4, 4), np.float32), SLOPE)
    assert [*fault.steps] == [3] and "validation" in str(fault) and not len(fault.rows)


@given(steps=st.integers(1, 3000), longest=st.integers(1, 40))
def test_chunks_are_nearly_as_long_as_they_may_be(steps, longest):
    length = loop._chunk_length(steps, loop.CHUNK_BYTES // longest)
    allowed = min(loop.LONGEST_CHUNK, longest, steps)
    assert allowed / 2 <= length <= allowed
    assert steps % length == 0 or steps % allowed != 0
