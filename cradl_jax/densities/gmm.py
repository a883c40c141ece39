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


@jax.jit
def log_prob(gmm: GMM, z: Array) -> Array:
    """log p(z) of points [N, D], [N]; finite with finite gradients far from the data."""
    return jax.nn.logsumexp(component_log_prob(gmm, z), axis=1)


def component_log_prob(gmm: GMM, z: Array) -> Array:
    """log pi_k N(z; mu_k, Sigma_k) of points [N, D], [N, K]."""
    return lax.map(partial(_of_point, gmm), z, batch_size=block(len(z)))


def block(points: int) -> int:
    """How many of so many points are worked on at once, in equal blocks.

    As many as fit a CPU's cache, or as keep a GPU busy.
    """
    largest = 1024 if _on_cpu() else 16384
    return -(-points // max(-(-points // largest), 1))


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _of_point(gmm: GMM, point: Array) -> Array:
    """log pi_k N(z; mu_k, Sigma_k) of one point [D], [K].

    On a CPU the zeros below four diagonal blocks of a precision factor are not multiplied.
    """
    size, panels = len(point), 4 if _on_cpu() else 1
    edges = [size * i // panels for i in range(panels + 1)]

    def of_component(component: GMM) -> Array:
        log_weight, mean, factor = component
        centered = point - mean
        whitened = jnp.concatenate(
            [matmul(centered[:last], factor[:last, first:last]) for first, last in pairwise(edges)]
        )
        log_determinant = jnp.log(jnp.diagonal(factor)).sum()
        constant = log_weight + log_determinant - size / 2 * jnp.log(2 * jnp.pi)
        return constant - jnp.square(whitened).sum() / 2

    return lax.map(of_component, gmm)
