"""Findings of a map whose parts were put where they are known to be."""

import numpy as np
import pytest

from cradl_jax.evaluation.masks import MASKS, HealthyMap, Mask
from cradl_jax.prediction import findings
from tests.helpers.scans import volume

AFFINE = np.array([[2.0, 0, 0, -30], [0, 3, 0, 20], [0, 0, 4, -50], [0, 0, 0, 1]])
VOXEL_ML = 2 * 3 * 4 / 1000


def healthy(threshold, masses, n_scans=10):
    mask = Mask(threshold=threshold, masses=masses)
    return HealthyMap(
        pixels={"0.01": 3.0, "0.05": 2.0, "0.1": 1.0},
        masks=dict.fromkeys(MASKS, mask),
        n_scans=n_scans,
    )


@pytest.fixture
def heat():
    """Two boxes and a speck above 1."""
    heat = np.full((20, 18, 16), 0.5, np.float32)
    heat[2:6, 3:5, 4:7] = 2.0  # 24 voxels, 1 above the threshold each
    heat[3, 4, 5] = 6.0
    heat[10:13, 10:13, 10:12] = 4.0  # 18 voxels, 3 above
    heat[17, 2, 2] = 9.0
    return heat


def test_findings_say_where_how_large_and_how_usual(heat):
    scan = volume(np.ones(heat.shape, np.float32), AFFINE)
    known = healthy(1.0, [2.0, 1.3, 55 * VOXEL_ML, 1.2, 0.1])
    found = findings.find(heat, scan, known, "component", 0.1)
    first, second = found.each
    assert (first.number, second.number) == (1, 2)
    assert first.volume_ml == pytest.approx(18 * VOXEL_ML)
    assert (first.mean, first.peak) == (4.0, 4.0)
    assert first.mass == pytest.approx(54 * VOXEL_ML)
    assert first.center_mm == pytest.approx((-30 + 2 * 11, 20 + 3 * 11, -50 + 4 * 10.5))
    assert first.extent_mm == pytest.approx((6, 9, 8))
    assert first.per_healthy_scan == pytest.approx(0.3)
    assert second.mass == pytest.approx(28 * VOXEL_ML)
    assert second.peak_mm == pytest.approx((-30 + 2 * 3, 20 + 3 * 4, -50 + 4 * 5))
    assert second.mean == pytest.approx((23 * 2 + 6) / 24)
    expected = np.zeros(heat.shape, int)
    expected[10:13, 10:13, 10:12] = 1
    expected[2:6, 3:5, 4:7] = 2
    np.testing.assert_array_equal(found.labels, expected)


def test_the_smallest_size_decides_what_a_finding_is(heat):
    scan = volume(np.ones(heat.shape, np.float32), AFFINE)
    known = healthy(1.0, [])
    for least, n in ((0, 3), (VOXEL_ML, 3), (1.5 * VOXEL_ML, 2), (20 * VOXEL_ML, 1), (1, 0)):
        found = findings.find(heat, scan, known, "0.05", least)
        assert len(found.each) == n == found.labels.max()
        assert all(finding.per_healthy_scan == 0 for finding in found.each)
    assert not findings.find(heat, scan, healthy(9.0, []), "volume", 0).each
