"""What a training step sends, against the paper's network worked by hand."""

from itertools import pairwise

import pytest

from experiments.benchmarks.scaling import NVLINK, load, sizes, step_seconds
from experiments.benchmarks.training import PAPER


def test_sizes_are_those_of_table_10():
    channels = [1, 64, 128, 256, 512, 1024]
    convolutions = sum(16 * a * b for a, b in pairwise(channels)) + 16 * 1024 * 512 + 512
    head = 512 * 512 + 512 + 512 * 256 + 256
    normalized = sum(channels[1:])
    assert sizes(PAPER) == (convolutions + head + 2 * normalized, normalized, 5)


def test_a_step_sends_gradients_twice_and_views_once_each_way():
    sent, (parameters, channels, _) = load(PAPER, 8, 4096), sizes(PAPER)
    assert sent.gradients == pytest.approx(2 * 7 / 8 * 4 * parameters)
    assert sent.views == pytest.approx(4 * 7 / 8 * 4096 * 256 * 4)  # u and v, there and back
    assert sent.statistics == pytest.approx(2 * 7 / 8 * 8 * channels * 4)
    assert load(PAPER, 1, 512).bytes == 0


def test_one_gpu_is_the_measured_step_and_more_only_lose():
    one = step_seconds(PAPER, 512, 1, NVLINK, 1e-4)
    assert one == pytest.approx(512e-4)
    times = [step_seconds(PAPER, 512, count, NVLINK, 1e-4) for count in (1, 2, 8, 64)]
    assert times == sorted(times) and len({*times}) == 4
