import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cradl_jax.ops.filters import _sorted_5, gaussian, median5x5
from tests.helpers.filters import scipy_gaussian, scipy_median


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
