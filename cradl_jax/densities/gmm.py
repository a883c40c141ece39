"""Gaussian mixtures (equation 5); `em` fits them."""

from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)  # no TF32 or bfloat16


class GMM(NamedTuple):
    """A mixture of K Gaussians in D dimensions; Sigma_k^-1 = U_k U_k^T.

    Attributes:
        log_weights: log pi_k, [K].
        means: mu_k, [K, D].
        precision_factors: upper triangular U_k, [K, D, D].
    """

    log_weights: Array
    means: Array
    precision_factors: Array


def like(gmm: GMM, size: int) -> GMM:
    """Return a mixture of as many components in `size` dimensions, for its shapes."""
    count = len(gmm.means)
    return GMM(jnp.zeros(count), jnp.zeros((count, size)), jnp.zeros((count, size, size)))


@jax.jit
def log_prob(gmm: GMM, z: Array) -> Array:
    """Return log p(z) of points [N, D], [N]; finite with finite gradients far from the data."""
    return jax.nn.logsumexp(component_log_prob(gmm, z), axis=1)


def component_log_prob(gmm: GMM, z: Array) -> Array:
    """Return log pi_k N(z; mu_k, Sigma_k) of points [N, D], [N, K]."""

    def of_point(point: Array) -> Array:
        return lax.map(partial(_log_joint, point), gmm)

    return lax.map(of_point, z, batch_size=block_size(len(z)))


def block_size(points: int) -> int:
    """Return how many of so many points to work on at once, in blocks of equal size.

    A block fits a CPU's cache, or keeps a GPU busy.
    """
    largest = 1024 if _on_cpu() else 16384
    return -(-points // max(-(-points // largest), 1))


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _log_joint(point: Array, component: GMM) -> Array:
    """Return log pi N(z; mu, Sigma) of one point [D]; the arrays of `component` lack the axis K."""
    log_weight, mean, factor = component
    whitened = _whiten(point - mean, factor)
    log_determinant = jnp.log(jnp.diagonal(factor)).sum()
    constant = log_weight + log_determinant - len(point) / 2 * jnp.log(2 * jnp.pi)
    return constant - jnp.square(whitened).sum() / 2


def _whiten(centered: Array, factor: Array) -> Array:
    """Return U^T (z - mu), [D], of a centered point [D] and the upper triangular U [D, D].

    A CPU goes by four panels of columns and leaves out the zeros below each.
    """
    size, panels = len(centered), 4 if _on_cpu() else 1
    edges = [size * i // panels for i in range(panels + 1)]
    return jnp.concatenate(
        [matmul(centered[:last], factor[:last, first:last]) for first, last in pairwise(edges)]
    )
