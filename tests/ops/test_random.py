import jax
import numpy as np
import pytest
from scipy.special import erfinv

from cradl_jax.ops import random

pytestmark = pytest.mark.optimized
FUNCTIONS = (random.bits, jax.random.bits, random.normal, jax.random.normal)
COMPILED = [jax.jit(function, static_argnums=1) for function in FUNCTIONS]


@pytest.mark.parametrize("shape", [(), (5,), (3, 7), (2, 128, 128)])
@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_bits_and_noise_are_those_of_jax(shape, seed):
    key = jax.random.fold_in(jax.random.key(seed), 3)
    bits, expected_bits, normal, expected_normal = (draw(key, shape) for draw in COMPILED)
    np.testing.assert_array_equal(bits, expected_bits)
    np.testing.assert_allclose(normal, expected_normal, rtol=1e-5, atol=1e-7)


def test_every_image_of_a_batch_has_noise_of_its_own():
    keys = jax.random.split(jax.random.key(0), 3)
    found = jax.vmap(lambda key: random.normal(key, (64, 64)))(keys).reshape(3, -1)
    assert np.abs(np.corrcoef(found) - np.eye(3)).max() < 0.07


def test_logarithm_is_that_of_numpy():
    x = np.exp(np.linspace(-80, 80, 100_001), dtype=np.float32)
    np.testing.assert_allclose(random.log(x), np.log(x.astype(float)), rtol=1e-6, atol=1e-7)


def test_inverse_error_function_is_that_of_scipy():
    small = np.logspace(-7, 0, 10_001)[:-1]
    x = np.concatenate([small, 1 - small, [0, np.nextafter(np.float32(1), 0)]]).astype(np.float32)
    x = x[x < 1]
    for sign in (1, -1):
        expected = erfinv(sign * x.astype(float))
        np.testing.assert_allclose(random.erf_inv(sign * x), expected, rtol=1e-5, atol=1e-7)
