import jax
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from cradl_jax import densities
from cradl_jax.errors import InputError

SETTINGS = {"blocks": 2, "hidden": 8, "epochs": 2, "batch_size": 64}


@pytest.fixture(scope="module")
def z():
    """Correlated, with scales from 0.03 to 100."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(400, 4)) @ (np.eye(4) + 0.3 * rng.normal(size=(4, 4)))
    return (mixed * [0.03, 1, 10, 100] + [0.1, 0, -40, 300]).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(z):
    key = jax.random.key(0)
    gmm, gmm_history = densities.fit_gmm(key, z, components=1)
    flow, flow_history = densities.fit_realnvp(key, z, z[:100], **SETTINGS)
    return {"GMM": (gmm, gmm_history), "RealNVP": (flow, flow_history)}


def test_likelihood_is_one_of_the_representations_themselves(z, fitted):
    gmm, history = fitted["GMM"]
    z64 = np.float64(z)
    expected = multivariate_normal(z64.mean(0), np.cov(z64.T, bias=True)).logpdf(z64)
    np.testing.assert_allclose(densities.log_prob(gmm, z), expected, rtol=0.02, atol=0.1)
    assert history[-1] == pytest.approx(expected.mean(), abs=0.1)
    flow, history = fitted["RealNVP"]
    nll = -densities.log_prob(flow, z[:100]).mean()
    assert nll == pytest.approx(history["val"].min(), abs=1e-3)


@pytest.mark.parametrize("kind", ["GMM", "RealNVP"])
def test_gradient_through_jit_equals_finite_differences(z, fitted, kind):
    density, _ = fitted[kind]
    gradient = jax.jit(jax.grad(lambda d, z: densities.log_prob(d, z).sum(), argnums=1))
    step = 0.01 * np.asarray(density.scale)
    points = z[:6]
    for i in range(4):
        shift = step[i] * np.eye(4, dtype=np.float32)[i]
        ahead, behind = (densities.log_prob(density, points + s) for s in (shift, -shift))
        slope = (ahead - behind) / 2 / step[i] * density.scale[i]
        actual = gradient(density, points)[:, i] * density.scale[i]
        np.testing.assert_allclose(actual, slope, atol=0.03)


def test_representations_that_are_not_finite_are_named(z):
    broken = z.copy()
    broken[:3, 1] = np.nan
    with pytest.raises(InputError, match="found 3 of 400"):
        densities.fit_gmm(jax.random.key(0), broken, components=1)
