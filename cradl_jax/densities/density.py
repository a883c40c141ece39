"""A fitted density of standardized representations."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from cradl_jax.densities import em, gmm, realnvp, realnvp_fit
from cradl_jax.errors import InputError

Model = gmm.GMM | realnvp.RealNVP
MODULES = {"GMM": gmm, "RealNVP": realnvp}
EPSILON = 1e-5  # added to the standard deviations


class Density(NamedTuple):
    """A density p(z), z in D dimensions, as a pytree of arrays: traceable, differentiable.

    Attributes:
        mean: [D], and `scale`: [D]; the model sees (z - mean) / scale.
        scale: standard deviation + 1e-5, [D].
        model: the mixture or flow; its type tells which.
    """

    mean: Array
    scale: Array
    model: Model


def log_prob(density: Density, z: ArrayLike) -> Array:
    """Return log p(z) of representations [N, D] themselves, not of standardized ones, [N]."""
    module = MODULES[type(density.model).__name__]
    standardized = (z - density.mean) / density.scale
    return module.log_prob(density.model, standardized) - jnp.log(density.scale).sum()


def fit_gmm(key: Array, z: ArrayLike, **settings) -> tuple[Density, np.ndarray]:
    """Standardize representations [N, D] and fit a mixture; `settings` are those of `em.fit`.

    Returns:
        The density, and the mean log-likelihood of z at the start of each EM iteration.

    Raises:
        InputError: see `em.fit`, or representations that are not finite.
    """
    mean, scale = _statistics(z)
    model, history = em.fit(key, jnp.subtract(z, mean) / scale, **settings)
    return Density(mean, scale, model), history - np.log(scale).sum()


def fit_realnvp(
    key: Array, z_train: ArrayLike, z_val: ArrayLike, **settings
) -> tuple[Density, dict[str, np.ndarray]]:
    """Standardize representations by `z_train` and fit a flow with `settings` of `realnvp_fit.fit`.

    Returns:
        The density, and the mean negative log-likelihoods of z, `train` and `val`, an epoch each.

    Raises:
        InputError: see `realnvp_fit.fit`, or representations that are not finite.
    """
    mean, scale = _statistics(z_train)
    z_train, z_val = (jnp.subtract(z, mean) / scale for z in (z_train, z_val))
    model, history = realnvp_fit.fit(key, z_train, z_val, **settings)
    constant = np.log(scale).sum()
    return Density(mean, scale, model), {name: loss + constant for name, loss in history.items()}


def _statistics(z: ArrayLike) -> tuple[Array, Array]:
    """Return mean and scale of every dimension, [D] each; summed in float64."""
    points = np.asarray(z)
    broken = np.count_nonzero(~np.isfinite(points).all(1))
    if broken or not len(points):
        raise InputError(
            f"representations: expected finite numbers, found {broken} of {len(points)} with NaN "
            "or infinity; train the encoder again, with a smaller learning rate"
        )
    mean, deviation = (function(points, 0, dtype=np.float64) for function in (np.mean, np.std))
    return jnp.float32(mean), jnp.float32(deviation + EPSILON)


def to_arrays(density: Density) -> dict[str, Array]:
    """Return the arrays of a density by name: all of it but the name of its model's type."""
    return {"mean": density.mean, "scale": density.scale, **density.model._asdict()}


def from_arrays(kind: str, arrays: Mapping[str, np.ndarray]) -> Density:
    """Return the density of `to_arrays` whose model's type is called `kind`.

    Raises:
        KeyError, TypeError, ValueError: they are not those of a density.
    """
    module = MODULES[kind]
    parameters = {name: jnp.asarray(array) for name, array in arrays.items()}
    mean, scale = parameters.pop("mean"), parameters.pop("scale")
    density = Density(mean, scale, getattr(module, kind)(**parameters))
    zeros = jnp.zeros(len(mean))
    expected = jax.eval_shape(lambda: Density(zeros, zeros, module.like(density.model, len(mean))))
    for found, like in zip(jax.tree.leaves(density), jax.tree.leaves(expected), strict=True):
        if (found.shape, found.dtype) != (like.shape, like.dtype):
            raise ValueError(f"{found.dtype} {found.shape} in place of {like.dtype} {like.shape}")
    return density
