import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from cradl_jax.postprocess import _sorted_5, gaussian, median5x5, postprocess


def scipy_median(images):
    return ndimage.median_filter(images, size=(1, 5, 5), mode="mirror")


def scipy_gaussian(images, sigma, taps):
    for axis in (1, 2):
        images = ndimage.gaussian_filter1d(images, sigma, axis, mode="mirror", radius=taps // 2)
    return images


@pytest.mark.parametrize("shape", [(20, 32, 32), (3, 17, 40), (1, 128, 128), (2, 5, 5)])
def test_median_equals_scipy_on_random_images(shape):
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(median5x5(images), scipy_median(images))


@settings(deadline=None, max_examples=30)
@given(arrays(np.float32, (2, 9, 8), elements=st.sampled_from([-1e30, -1, 0, 1e-30, 2, 1e30])))
def test_median_equals_scipy_with_ties_and_a_huge_range(images):
    np.testing.assert_array_equal(median5x5(images), scipy_median(images))


def test_median_of_a_constant_image_is_that_constant():
    images = np.full((1, 16, 16), 0.3, np.float32)
    np.testing.assert_array_equal(median5x5(images), images)


def test_columns_are_sorted_for_every_zero_one_input():
    inputs = list(np.array(list(itertools.product([0, 1], repeat=5))).T)
    np.testing.assert_array_equal(_sorted_5(inputs), np.sort(inputs, axis=0))


def test_median_is_right_for_every_zero_one_window():
    """A min-max network is right for all inputs if it is for zeros and ones (the 0-1 principle).

    Sorted columns of zeros and ones differ only in their number of ones: 6^5 windows are all.
    """
    counts = np.array(list(itertools.product(range(6), repeat=5)))
    windows = (np.arange(5)[None, :, None] < counts[:, None, :]).astype(np.float32)
    medians = median5x5(windows)[:, 2, 2]
    np.testing.assert_array_equal(medians, counts.sum(1) >= 13)


@pytest.mark.parametrize(("sigma", "taps"), [(3.0, 7), (1.0, 5), (0.5, 3)])
def test_gaussian_equals_scipy(sigma, taps):
    images = np.random.default_rng(1).normal(size=(4, 24, 33)).astype(np.float32)
    expected = scipy_gaussian(images.astype(np.float64), sigma, taps)
    np.testing.assert_allclose(gaussian(images, sigma, taps), expected, atol=1e-6)


def test_gaussian_spreads_one_pixel_over_seven_by_seven_and_keeps_the_sum():
    image = np.zeros((1, 21, 21), np.float32)
    image[0, 10, 10] = 1
    smooth = np.asarray(gaussian(image, 3.0, 7))[0]
    assert np.count_nonzero(smooth) == 49
    assert smooth.sum() == pytest.approx(1, abs=1e-6)
    assert smooth[10, 7] / smooth[10, 10] == pytest.approx(np.exp(-0.5), rel=1e-5)


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
