import sys

import jax
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from cradl_jax.densities import realnvp, realnvp_fit
from cradl_jax.errors import InputError


def random_flow(size: int) -> realnvp.RealNVP:
    """A flow whose every array matters: output layers filled with noise."""
    flow = realnvp.init(jax.random.key(0), size, blocks=3, hidden=16)
    kernel, bias = (
        jax.random.normal(jax.random.key(i), array.shape) for i, array in enumerate(flow[3:])
    )
    return flow._replace(output_kernel=0.3 * kernel, output_bias=0.3 * bias)


def inverse(flow: realnvp.RealNVP, latent: jax.Array) -> jax.Array:
    """Undo the blocks from the last to the first, by the inverse of distrax's coupling."""
    for number in reversed(range(len(flow.permutations))):
        block = jax.tree.map(lambda array, number=number: array[number], flow)
        before = latent[:, np.argsort(block.permutations)]
        latent = realnvp.coupling(block).inverse(before)
    return latent


@pytest.mark.parametrize("size", [2, 5])
def test_round_trip_and_log_determinant(size):
    flow = random_flow(size)
    z = jax.random.normal(jax.random.key(5), (20, size))
    latent, log_determinant = realnvp.forward(flow, z)
    np.testing.assert_allclose(inverse(flow, latent), z, atol=1e-4)
    jacobian = jax.vmap(jax.jacobian(lambda z: realnvp.forward(flow, z)[0]))(z)
    expected = np.linalg.slogdet(np.float64(jacobian))[1]
    np.testing.assert_allclose(log_determinant, expected, atol=1e-4)
    assert np.ptp(log_determinant) > 0.1


def test_log_prob_is_the_change_of_variables():
    flow = random_flow(5)
    z = jax.random.normal(jax.random.key(5), (realnvp.BATCH + 3, 5))
    latent, log_determinant = realnvp.forward(flow, z)
    expected = multivariate_normal(np.zeros(5)).logpdf(latent) + np.asarray(log_determinant)
    np.testing.assert_allclose(realnvp.log_prob(flow, z), expected, rtol=1e-4, atol=1e-4)


def test_a_block_keeps_one_half_and_transforms_the_other():
    flow = random_flow(5)
    first = jax.tree.map(lambda array: array[:1], flow)
    z = jax.random.normal(jax.random.key(5), (7, 5))
    latent, _ = realnvp.forward(first, z)
    before = latent[:, np.argsort(first.permutations[0])]
    np.testing.assert_array_equal(before[:, :2], z[:, :2])
    assert (np.abs(before[:, 2:] - z[:, 2:]) > 1e-6).all()


def test_log_scales_are_bounded():
    flow = random_flow(6)
    flow = flow._replace(output_kernel=1e3 * flow.output_kernel)
    far = 1e4 * jax.random.normal(jax.random.key(1), (10, 6))
    _, log_determinant = realnvp.forward(flow, far)
    assert np.abs(log_determinant).max() <= 3 * 3 * realnvp.CLAMP + 1e-4  # blocks x transformed
    assert np.isfinite(jax.grad(lambda z: realnvp.log_prob(random_flow(6), z).sum())(far)).all()


def test_finite_far_from_the_data_and_farther_is_less_likely():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(600, 6)) @ rng.normal(size=(6, 24))
    z = np.float32((z - z.mean(0)) / z.std(0))
    flow, _ = realnvp_fit.fit(
        jax.random.key(0), z[:500], z[500:], hidden=32, epochs=10, batch_size=50, decay_epochs=8
    )
    directions = rng.normal(size=(20, 24)).astype(np.float32)
    values = []
    for distance in np.float32([1e3, 1e6, 1e9, 1e12, 1e15]):
        points = distance * directions
        value, pullback = jax.vjp(lambda z: realnvp.log_prob(flow, z), points)
        (gradient,) = pullback(np.ones(20, np.float32))
        assert np.isfinite(value).all() and np.isfinite(gradient).all()
        assert (np.abs(gradient).max(1) > 0).all()
        values.append(np.asarray(value))
    assert (np.diff(values, axis=0) < 0).all()


def test_without_distrax_the_flow_alone_is_missing(monkeypatch):
    flow = random_flow(4)
    monkeypatch.setitem(sys.modules, "distrax", None)
    jax.clear_caches()
    assert realnvp.like(flow, 4).output_bias.shape == flow.output_bias.shape
    with pytest.raises(InputError, match=r"^distrax: expected it to run with .*blocks=0"):
        realnvp.log_prob(flow, np.zeros((1, 4)))
