import jax.numpy as jnp
import numpy as np

from cradl_jax.postprocess import postprocess
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
