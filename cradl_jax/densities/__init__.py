"""Densities of representations, one interface for all (Section 3.2, equations 5 and 6).

    density, history = fit_gmm(key, z, components=8)       or  fit_realnvp(key, z, z_val)
    log_prob(density, z) -> [N]

A `Density` standardizes z per dimension and adds the constant log-determinant, so that its
likelihood is one of z itself and likelihoods of different densities compare. It is a pytree of
arrays: an argument of `jax.jit`, and `jax.grad` goes through it to z.
"""

from cradl_jax.densities.density import (
    Density,
    fit_gmm,
    fit_realnvp,
    from_arrays,
    log_prob,
    to_arrays,
)
from cradl_jax.densities.em import Collapsed

__all__ = [
    "Collapsed",
    "Density",
    "fit_gmm",
    "fit_realnvp",
    "from_arrays",
    "log_prob",
    "to_arrays",
]
