"""Components against a flood fill by hand, and their measures against sums over their voxels."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cradl_jax.evaluation import components


def flooded(above):
    """Sets of voxels that touch by a face, an edge or a corner."""
    left = set(map(tuple, np.argwhere(above).tolist()))
    found = []
    while left:
        part, edge = set(), {left.pop()}
        while edge:
            place = edge.pop()
            part.add(place)
            near = {tuple(np.add(place, step).tolist()) for step in product((-1, 0, 1), repeat=3)}
            edge |= near & left
            left -= near
        found.append(part)
    return found


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 0.4), least=st.integers(0, 5))
def test_components_are_those_of_a_flood_fill(seed, share, least):
    random = np.random.default_rng(seed)
    heat = random.uniform(0, 1, (6, 7, 5)).astype(np.float32)
    threshold = 1 - share
    found = components.components(heat, threshold, 0.5, least * 0.5)
    expected = [part for part in flooded(heat > threshold) if len(part) >= least]
    mass = [0.5 * sum(float(heat[place]) - threshold for place in part) for part in expected]
    order = np.argsort(mass)[::-1]
    assert len(found.masses) == len(expected) == found.labels.max()
    np.testing.assert_allclose(found.masses, np.array(mass)[order], rtol=1e-4, atol=1e-6)
    for k, place in enumerate(order):
        part = np.array(sorted(expected[place]))
        values = heat[tuple(part.T)]
        label = {int(found.labels[tuple(voxel)]) for voxel in part}
        if np.isclose(mass[place], np.delete(mass, place), rtol=1e-4).any():
            continue  # their order is anybody's
        assert label == {k + 1}
        assert found.voxels[k] == len(part)
        np.testing.assert_allclose(found.means[k], values.mean(), rtol=1e-6)
        assert found.peaks[k] == values.max()
        assert heat[tuple(found.peak_voxels[k].astype(int))] == values.max()
        np.testing.assert_allclose(found.centers[k], part.mean(0))
        np.testing.assert_array_equal(found.extents[k], np.ptp(part, axis=0) + 1)
    assert np.count_nonzero(found.labels) == sum(map(len, expected))
    every = np.sort(components.masses(heat, threshold, 0.5))[::-1]
    whole = components.components(heat, threshold, 0.5, 0)
    np.testing.assert_allclose(every, whole.masses)
    largest = max(map(len, expected), default=0)
    if least <= largest:
        assert components.holds(heat, threshold, max(largest, 1)) == bool(largest)
    assert not components.holds(
        heat, threshold, max(map(len, flooded(heat > threshold)), default=0) + 1
    )


@pytest.mark.parametrize("heat", [np.zeros((3, 3, 3)), np.full((3, 3, 3), 2.0)])
def test_nothing_and_everything_above(heat):
    found = components.components(heat, 1.0, 2.0, 0.1)
    assert len(found.masses) == len(found.centers) == int(heat.any())
    if heat.any():
        assert found.masses.tolist() == [54.0] and found.extents.tolist() == [[3, 3, 3]]
        assert found.centers.tolist() == [[1, 1, 1]]
