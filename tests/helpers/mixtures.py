"""Clusters of points, and mixtures of Gaussians in float64 by SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from cradl_jax.densities import em, gmm

REGULARIZATION = 1e-5


def clusters(seed: int, n: int, size: int, components: int = 3) -> np.ndarray:
    """Overlapping correlated clusters, [n, size]."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(size) + rng.normal(size=(components, size, size)) / np.sqrt(4 * size)
    centers = 2 * rng.normal(size=(components, size))
    label = rng.integers(components, size=n)
    noise = np.einsum("nd,nde->ne", rng.normal(size=(n, size)), mixing[label])
    return (centers[label] + noise).astype(np.float32)


def covariances(mixture: gmm.GMM) -> np.ndarray:
    factors = np.asarray(mixture.precision_factors, np.float64)
    return np.linalg.inv(factors @ factors.swapaxes(1, 2))


def reference_log_prob(mixture: gmm.GMM, z: np.ndarray) -> np.ndarray:
    joint = [
        log_weight + multivariate_normal(mean, covariance).logpdf(z)
        for log_weight, mean, covariance in zip(
            *map(np.asarray, mixture[:2]), covariances(mixture), strict=True
        )
    ]
    return logsumexp(joint, axis=0)


def started(z: np.ndarray, components: int, seed: int = 0) -> gmm.GMM:
    return em.warm_start(jax.random.key(seed), jnp.asarray(z), components, REGULARIZATION)
