"""Slices on every device and slices from disk: the same training, to the bit."""

import jax
import numpy as np
import pytest
from test_train import OBJECTIVE, OPTIMIZER, initial_state

from cradl_jax import train as training
from cradl_jax.feeds import Schedule, resident
from cradl_jax.streaming import streamed
from cradl_jax.train import train


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1.5, 1.5, (80, 16, 16)).astype(np.float32)


def run(state, images, devices, place):
    how = {"epochs": 2, "batch_size": 12, "seed": 3, "devices": devices, "place": place}
    return list(train(state, OBJECTIVE, OPTIMIZER, images[:50], images[50:], **how))


@pytest.mark.parametrize("count", [1, 4])
def test_streamed_training_is_the_resident_one_to_the_bit(images, tmp_path, monkeypatch, count):
    """Also from a step within an epoch, from a memory-mapped file."""
    monkeypatch.setattr(training, "LONGEST_CHUNK", 2)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    devices = jax.devices()[:count]
    expected = run(initial_state(), images, devices, resident)
    assert [int(chunk.state.step) for chunk in expected] == [2, 4, 6, 8]
    for start in (0, 1):
        state = expected[start - 1].state if start else initial_state()
        found = run(state, mapped, devices, streamed)
        jax.tree.map(np.testing.assert_array_equal, found, expected[start:])


def test_streaming_takes_shorter_chunks_where_slices_are_large(images, monkeypatch):
    monkeypatch.setattr(training, "CHUNK_BYTES", 2 * 12 * images[0].nbytes)
    found = run(initial_state(), images, jax.devices()[:1], streamed)
    expected = run(initial_state(), images, jax.devices()[:1], resident)
    assert [int(chunk.state.step) for chunk in found] == [2, 4, 6, 8]
    assert [int(chunk.state.step) for chunk in expected] == [4, 8]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        found[-1],
        expected[-1]._replace(train=found[-1].train),
    )


@pytest.mark.parametrize("start", [0, 4, 7])
def test_schedule_is_a_permutation_an_epoch_whatever_the_chunks(start):
    whole = np.concatenate([*Schedule(50, 8, 3, 5, length=6)])
    assert whole.shape == (18, 8)
    for epoch in whole.reshape(3, 48):
        assert len({*epoch.tolist()}) == 48 and epoch.max() < 50
    assert not (whole[:6] == whole[6:12]).all()
    for length in (1, 2, 3, 6):
        chunks = [*Schedule(50, 8, 3, 5, length, start)]
        np.testing.assert_array_equal(np.concatenate(chunks), whole[start:])
        assert {len(chunk) for chunk in chunks[1:]} <= {length}
    assert len(Schedule(50, 8, 3, 5, length=2, start=18)) == 0
