"""Thresholds of masks against what healthy scans have above them, counted by other means."""

import json

import numpy as np
import pytest
from scipy import ndimage

from cradl_jax.errors import InputError
from cradl_jax.evaluation import masks
from cradl_jax.evaluation.masks import BrainMap

ML = 0.2  # a voxel: 5 of them are 1 ml


def healthy(n, seed=0, ties=False):
    """Smooth maps of n scans of different heights, 0 outside the brain."""
    random = np.random.default_rng(seed)
    scans = []
    for _ in range(n):
        shape = (random.integers(6, 12), 16, 14)
        heat = np.abs(ndimage.gaussian_filter(random.normal(size=shape), 1)).astype(np.float32)
        heat = np.round(heat, 2) if ties else heat
        brain = np.zeros(shape, bool)
        brain[1:-1, 3:-3, 3:-2] = True
        scans.append(BrainMap(heat * brain, brain, ML))
    return scans


def brain_voxels(scans):
    return [np.count_nonzero(scan.brain) for scan in scans]


def largest_ml(scan, threshold):
    labels, n = ndimage.label(scan.heat > threshold, np.ones((3, 3, 3)))
    return ML * max((np.count_nonzero(labels == k) for k in range(1, n + 1)), default=0)


@pytest.mark.parametrize(("n", "ties"), [(1, False), (7, True), (20, False), (43, True)])
def test_each_threshold_is_the_lowest_that_keeps_its_word(n, ties):
    scans = healthy(n, n, ties)
    found = masks.find(lambda: iter(scans), brain_voxels(scans))
    assert found.keys() == set(masks.MASKS)
    values = np.unique(np.concatenate([scan.heat[scan.brain] for scan in scans]))

    def too_many(name, threshold):
        if name == masks.COMPONENT:
            return sum(largest_ml(scan, threshold) >= 1 - 1e-9 for scan in scans) > n // 20
        if name == masks.VOLUME:
            small = [ML * np.count_nonzero(scan.heat > threshold) <= 1 + 1e-9 for scan in scans]
            return sum(small) < n / 2
        inside = np.concatenate([scan.heat[scan.brain] for scan in scans])
        return np.mean(inside > threshold) > float(name)

    for name, mask in found.items():
        assert not too_many(name, mask.threshold), name
        lower = values[values < np.float32(mask.threshold)]
        if lower.size:
            assert too_many(name, lower[-1]), name


def test_masses_are_those_of_all_components_the_heaviest_first():
    scans = healthy(4, 9)
    for mask in masks.find(lambda: iter(scans), brain_voxels(scans)).values():
        every = []
        for scan in scans:
            labels, n = ndimage.label(scan.heat > mask.threshold, np.ones((3, 3, 3)))
            more = scan.heat - mask.threshold
            every += [ML * more[labels == k].sum() for k in range(1, n + 1)]
        expected = sorted(every, reverse=True)[: masks.KEPT * len(scans)]
        np.testing.assert_allclose(mask.masses, expected, rtol=1e-3, atol=1e-6)


def test_a_brain_smaller_than_a_milliliter_has_no_component_of_one():
    heat = np.array([[[3.0, 2.0, 1.0]]], np.float32)
    scan = BrainMap(heat, heat > 0, ML)
    found = masks.find(lambda: iter([scan]), [3])
    assert found[masks.COMPONENT].threshold == found[masks.VOLUME].threshold == 0


def test_values_that_are_not_finite_and_no_scans_are_refused():
    heat = np.full((2, 3, 3), np.nan, np.float32)
    with pytest.raises(InputError, match="expected finite scores and heatmaps"):
        masks.find(lambda: iter([BrainMap(heat, np.ones(heat.shape, bool), ML)]), [18])
    with pytest.raises(InputError, match="one or more"):
        masks.find(lambda: iter([]), [])


def test_they_are_plain_values():
    scans = healthy(2)
    kept = masks.HealthyMap(
        pixels={"0.01": 3.0, "0.05": 2.0, "0.1": 1.0},
        masks=masks.find(lambda: scans, brain_voxels(scans)),
        n_scans=2,
    )
    again = masks.HealthyMap.model_validate(json.loads(json.dumps(kept.model_dump())))
    assert again == kept
