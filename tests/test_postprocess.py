import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import convolve1d

from cradl_jax.postprocess import over_neighbours, postprocess, relative
from tests.helpers.filters import scipy_gaussian, scipy_median


def test_postprocess_is_mask_then_median_then_gaussian():
    rng = np.random.default_rng(2)
    heatmaps = rng.gamma(1, 1, size=(5, 32, 32)).astype(np.float32)
    grid = np.hypot(*np.mgrid[-1:1:32j, -1:1:32j])
    brains = np.stack([grid < radius for radius in (0.3, 0.5, 0.7, 0.9, 2)])
    expected = scipy_gaussian(scipy_median(np.where(brains, heatmaps, 0)).astype(float), 3, 7)
    np.testing.assert_allclose(postprocess(heatmaps, brains), expected, atol=1e-6)
    assert np.asarray(postprocess(heatmaps, brains))[0][~brains[0]].max() > 0


def test_nothing_from_outside_the_brain_enters():
    rng = np.random.default_rng(3)
    heatmaps = rng.gamma(1, 1, size=(2, 32, 32)).astype(np.float32)
    brains = rng.random((2, 32, 32)) < 0.8
    changed = np.where(brains, heatmaps, np.float32(1e6))
    np.testing.assert_array_equal(postprocess(changed, brains), postprocess(heatmaps, brains))


def test_postprocess_of_a_slice_does_not_depend_on_its_batch():
    rng = np.random.default_rng(4)
    heatmaps = rng.gamma(1, 1, size=(11, 32, 32)).astype(np.float32)
    brains = np.ones(heatmaps.shape, bool)
    alone = jnp.concatenate([postprocess(heatmaps[i, None], brains[i, None]) for i in range(11)])
    np.testing.assert_allclose(postprocess(heatmaps, brains), alone, rtol=1e-6)


@given(st.integers(1, 12), st.integers(1, 5))
def test_neighbours_count_the_less_the_further_away_and_nothing_beyond_the_ends(slices, beside):
    maps = np.random.default_rng(slices).gamma(1, 1, (slices, 3, 4)).astype(np.float32)
    triangle = np.convolve(np.ones(beside + 1), np.ones(beside + 1))
    padded = np.pad(maps, ((beside, beside), (0, 0), (0, 0)))
    counted = np.pad(np.ones_like(maps), ((beside, beside), (0, 0), (0, 0)))
    total, weight = (convolve1d(x, triangle, axis=0) for x in (padded, counted))
    expected = (total / np.where(weight > 0, weight, 1))[beside : beside + slices]
    np.testing.assert_allclose(over_neighbours(maps, beside), expected, rtol=1e-5)


@given(st.floats(1e-3, 1e3), st.integers(0, 99))
def test_relative_maps_do_not_depend_on_how_unusual_the_scan_is_throughout(factor, seed):
    maps = np.random.default_rng(seed).gamma(2, 1, (5, 6, 7)).astype(np.float32)
    maps[:, :2] = 0
    found = relative(np.float32(factor) * maps)
    np.testing.assert_allclose(found, relative(maps), rtol=1e-5)
    assert np.median(found[:, 2:]) == pytest.approx(1, rel=1e-5)
    assert found.dtype == np.float32 and not found[:, :2].any()


def test_maps_that_are_0_throughout_have_no_unit():
    nothing = np.zeros((2, 3, 3), np.float32)
    np.testing.assert_array_equal(relative(nothing), nothing)
