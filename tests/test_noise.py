import jax
import numpy as np
import pytest

from cradl_jax import noise


@pytest.mark.parametrize("shape", [(), (5,), (3, 7), (2, 128, 128)])
@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_bits_and_noise_are_those_of_jax(shape, seed):
    key = jax.random.fold_in(jax.random.key(seed), 3)
    np.testing.assert_array_equal(noise.bits(key, shape), jax.random.bits(key, shape))
    expected = jax.random.normal(key, shape)
    np.testing.assert_allclose(noise.normal(key, shape), expected, rtol=1e-5, atol=1e-7)


def test_every_image_of_a_batch_has_noise_of_its_own():
    keys = jax.random.split(jax.random.key(0), 3)
    found = jax.vmap(lambda key: noise.normal(key, (64, 64)))(keys).reshape(3, -1)
    assert np.abs(np.corrcoef(found) - np.eye(3)).max() < 0.07
