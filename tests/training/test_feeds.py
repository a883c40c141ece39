"""Slices on every device and slices from disk: the same training, to the bit."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cradl_jax.data.slices.subset import SliceSubset
from cradl_jax.training import loop
from cradl_jax.training.feeds import Schedule, resident, streamed
from cradl_jax.training.loop import train
from tests.helpers.small_simclr import OBJECTIVE, OPTIMIZER, initial_state


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1.5, 1.5, (80, 16, 16)).astype(np.float32)


class FromDisk:
    def __init__(self, mapped):
        self.mapped = mapped

    def __getitem__(self, part):
        return SliceSubset(self.mapped, np.arange(len(self.mapped))[part])


def run(state, images, devices, place):
    settings = {"epochs": 2, "batch_size": 12, "seed": 3, "devices": devices, "place": place}
    data = (images[part] for part in (slice(50), slice(50, None)))
    return list(train(state, OBJECTIVE, OPTIMIZER, *data, **settings))


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_streamed_training_is_the_resident_one_to_the_bit(images, tmp_path, monkeypatch, count):
    """Also from a step within an epoch, from a memory-mapped file."""
    monkeypatch.setattr(loop, "LONGEST_CHUNK", 2)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    devices = jax.devices()[:count]
    expected = run(initial_state(), images, devices, resident)
    assert [int(chunk.state.step) for chunk in expected] == [2, 4, 6, 8]
    for start in (0, 1):
        state = expected[start - 1].state if start else initial_state()
        chunks = run(state, FromDisk(mapped), devices, streamed)
        jax.tree.map(np.testing.assert_array_equal, chunks, expected[start:])


def test_streaming_takes_shorter_chunks_where_slices_are_large(images, monkeypatch):
    monkeypatch.setattr(loop, "CHUNK_BYTES", 2 * 12 * images[0].nbytes)
    chunks = run(initial_state(), images, jax.devices()[:1], streamed)
    expected = run(initial_state(), images, jax.devices()[:1], resident)
    assert [int(chunk.state.step) for chunk in chunks] == [2, 4, 6, 8]
    assert [int(chunk.state.step) for chunk in expected] == [4, 8]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        chunks[-1],
        expected[-1]._replace(train=chunks[-1].train),
    )


@pytest.mark.parametrize("start", [0, 4, 7])
def test_schedule_is_a_permutation_an_epoch_whatever_the_chunks(start):
    whole = np.concatenate([*Schedule(50, 8, 3, 5, length=6)])
    assert whole.shape == (18, 8)
    for epoch in whole.reshape(3, 48):
        assert len({*epoch.tolist()}) == 48 and epoch.max() < 50
    assert not (whole[:6] == whole[6:12]).all()
    for length in range(1, 7):
        chunks = [*Schedule(50, 8, 3, 5, length, start)]
        np.testing.assert_array_equal(np.concatenate(chunks), whole[start:])
        ends = start + np.cumsum([len(chunk) for chunk in chunks])
        assert {6, 12, 18} - {*range(start + 1)} <= {*ends.tolist()}  # no chunk spans two epochs
        assert max(len(chunk) for chunk in chunks) == length
    assert len(Schedule(50, 8, 3, 5, length=2, start=18)) == 0


def test_selected_slices_are_those_of_the_file(images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    rows = np.array([70, 3, 3, 41, 0])
    selected = SliceSubset(np.load(tmp_path / "images.npy", mmap_mode="r"), rows)
    assert len(selected) == 5
    np.testing.assert_array_equal(selected[:], images[rows])
    np.testing.assert_array_equal(selected[np.array([4, 1])], images[[0, 3]])


@pytest.mark.slow
def test_a_million_slices_stream_in_less_than_2_gigabytes(tmp_path):
    script = Path(__file__).parents[1] / "helpers" / "streamed_million.py"
    finished = subprocess.run(
        [sys.executable, script, tmp_path / "store"],
        env={**os.environ, "PYTHONPATH": str(script.parents[2]), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    steps, peak = map(int, finished.stdout.split()[-2:])
    assert steps == 21
    assert peak < 2e9
