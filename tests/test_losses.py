import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from cradl_jax.devices.parallel import AXIS, over_devices
from cradl_jax.losses import CONTRAST, LUMINANCE, SIGMA, WINDOW, nt_xent, ssim, total_variation
from tests.helpers.filters import scipy_gaussian


def projections(seed, n, width=8):
    return jax.random.normal(jax.random.key(seed), (2, n, width))


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 1000), st.sampled_from([1, 5]), st.floats(0.05, 2.0))
def test_nt_xent_equals_optax(seed, n, temperature):
    u, v = projections(seed, n)
    pairs = jnp.tile(jnp.arange(n), 2)
    expected = jax.jit(optax.losses.ntxent)(jnp.concatenate([u, v]), pairs, temperature)
    loss, _ = jax.jit(nt_xent)(u, v, temperature)
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-5)


def test_a_projection_of_zero_has_no_gradient_and_the_others_have_theirs():
    u, v = projections(0, 4)
    v = v.at[2].set(0)
    of_v = jax.grad(lambda v: nt_xent(u, v)[0])(v)
    assert not of_v[2].any() and np.isfinite(of_v).all()
    check_grads(lambda u: nt_xent(u, v)[0], (u,), order=1, modes=["rev"], rtol=1e-2, atol=1e-3)


def test_nt_xent_by_hand():
    # Orthogonal pairs of identical views: positive similarity 1, every other one 0.
    u = jnp.eye(3)
    loss, terms = nt_xent(u, 2 * u, temperature=0.5)
    np.testing.assert_allclose(loss, -np.log(np.exp(2) / (np.exp(2) + 4)), rtol=1e-6)
    assert terms["accuracy"] == 1.0


@pytest.mark.parametrize("count", [2, 4])
def test_many_devices_contrast_the_whole_batch(count):
    devices = jax.devices()[:count]
    u, v = projections(0, 8)

    def per_device(u, v):
        def mean_loss(u, v):
            return nt_xent(u, v, 0.5, AXIS)[0]

        loss, gradient = jax.value_and_grad(mean_loss)(u, v)
        return jax.lax.pmean(loss, AXIS), gradient

    shared = [x.reshape(count, 8 // count, -1) for x in (u, v)]
    loss, gradient = over_devices(per_device, devices, (0, 0), 0)(*shared)
    expected, expected_gradient = jax.value_and_grad(lambda u, v: nt_xent(u, v, 0.5)[0])(u, v)
    np.testing.assert_allclose(loss, np.full(count, expected), rtol=1e-5)
    # The devices' losses add up to `count` times the mean over the whole batch.
    np.testing.assert_allclose(gradient.reshape(8, -1) / count, expected_gradient, atol=1e-6)


def test_total_variation_is_the_length_of_each_gradient():
    images = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
    down, right = np.diff(images, axis=1)[:, :, :-1], np.diff(images, axis=2)[:, :-1]
    expected = np.hypot(down, right).sum((1, 2))
    np.testing.assert_allclose(total_variation(images), expected, rtol=1e-4)
    flat = jax.grad(lambda x: total_variation(x).sum())(jnp.ones((1, 4, 4)))
    np.testing.assert_array_equal(flat, np.zeros((1, 4, 4)))


@pytest.mark.parametrize("shape", [(3, 9, 12, 2), (8, 7, 7, 5)])
def test_ssim_equals_its_definition_by_scipy(shape):
    rng = np.random.default_rng(0)
    x, y = rng.gamma(0.5, size=(2, *shape))
    y[0] = x[0]

    def mean(maps):
        smooth = scipy_gaussian(np.moveaxis(maps, -1, 0).reshape(-1, *shape[1:3]), SIGMA, WINDOW)
        return np.moveaxis(smooth.reshape(shape[-1], *shape[:3]), 0, -1)

    mean_x, mean_y = mean(x), mean(y)
    covariance = mean(x * y) - mean_x * mean_y
    variances = mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2
    expected = (2 * mean_x * mean_y + LUMINANCE) / (mean_x**2 + mean_y**2 + LUMINANCE)
    expected *= (2 * covariance + CONTRAST) / (variances + CONTRAST)
    found = jax.jit(ssim)(x.astype(np.float32), y.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=2e-4)
    np.testing.assert_allclose(found[0], 1, atol=1e-5)


def test_ssim_falls_with_brightness_contrast_and_structure_apart():
    x = jax.random.uniform(jax.random.key(0), (4, 8, 8, 3), minval=0.5)
    brighter, paler, other = x + 0.5, 0.5 * (x + x.mean()), x[::-1]
    for y in (brighter, paler, other):
        assert float(ssim(x, y).mean()) < 0.95
        np.testing.assert_allclose(ssim(x, y), ssim(y, x), atol=2e-5)
    check_grads(lambda y: ssim(x, y).mean(), (other,), order=1, modes=["rev"], rtol=1e-2, atol=1e-3)
