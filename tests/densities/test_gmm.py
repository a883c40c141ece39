import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from cradl_jax.densities import em, gmm
from tests.helpers.mixtures import clusters, covariances, reference_log_prob, started


def test_log_prob_equals_scipy_and_its_gradient_the_formula():
    z = clusters(1, 400, 6)
    mixture = started(z, 3)
    expected = reference_log_prob(mixture, z)
    np.testing.assert_allclose(gmm.log_prob(mixture, z), expected, rtol=1e-5, atol=1e-4)

    means, sigma = np.float64(mixture.means), covariances(mixture)
    joint = np.stack(
        [
            w + multivariate_normal(m, s).logpdf(z)
            for w, m, s in zip(np.asarray(mixture.log_weights), means, sigma, strict=True)
        ],
        axis=1,
    )
    pull = np.stack([(m - z) @ np.linalg.inv(s) for m, s in zip(means, sigma, strict=True)], axis=1)
    expected = np.einsum("nk,nkd->nd", np.exp(joint - logsumexp(joint, 1)[:, None]), pull)
    gradient = jax.grad(lambda z: gmm.log_prob(mixture, z).sum())(jnp.asarray(z))
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=2e-3)


def test_density_integrates_to_one():
    mixture, _ = em.fit(jax.random.key(0), clusters(3, 500, 2), components=3)
    axis = np.linspace(-15, 15, 601)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    total = np.exp(np.float64(gmm.log_prob(mixture, grid))).sum() * (axis[1] - axis[0]) ** 2
    assert total == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("distance", [1e3, 1e4, 1e6, 1e9, 1e12, 1e15])
def test_finite_far_from_the_data(distance):
    """Scores to 1e30 and more, and their gradients, against the formula in float64."""
    mixture, _ = em.fit(jax.random.key(0), clusters(4, 1500, 9), components=3)
    far = np.float32(distance * np.random.default_rng(0).normal(size=(50, 9)))
    value, gradient = jax.value_and_grad(lambda z: gmm.log_prob(mixture, z).sum())(far)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).max(1) > 0).all()
    expected = reference_log_prob(mixture, np.float64(far))
    np.testing.assert_allclose(gmm.log_prob(mixture, far), expected, rtol=1e-3)
