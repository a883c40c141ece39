"""A fitted density of standardized representations, and its file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cradl_jax.densities import em, gmm, realnvp
from cradl_jax.errors import InputError, cause
from cradl_jax.storage.files import replacing
from cradl_jax.storage.reading import read_arrays

Model = gmm.GMM | realnvp.RealNVP
MODULES = {"GMM": (gmm.GMM, gmm.log_prob), "RealNVP": (realnvp.RealNVP, realnvp.log_prob)}
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


def log_prob(density: Density, z: Array) -> Array:
    """log p(z) of representations [N, D] themselves, not of standardized ones, [N]."""
    _, model_log_prob = MODULES[type(density.model).__name__]
    standardized = (z - density.mean) / density.scale
    return model_log_prob(density.model, standardized) - jnp.log(density.scale).sum()


def fit_gmm(key: Array, z: Array, **settings) -> tuple[Density, np.ndarray]:
    """Standardize representations [N, D] and fit a mixture; `settings` are those of `em.fit`.

    Returns:
        The density, and the mean log-likelihood of z at the start of each EM iteration.

    Raises:
        InputError: as `em.fit`, or representations that are not finite.
    """
    mean, scale = _statistics(z)
    model, history = em.fit(key, (z - mean) / scale, **settings)
    return Density(mean, scale, model), history - np.log(scale).sum()


def fit_realnvp(
    key: Array, z_train: Array, z_val: Array, **settings
) -> tuple[Density, dict[str, np.ndarray]]:
    """Standardize representations by `z_train` and fit a flow; `settings` as `realnvp.fit`'s.

    Returns:
        The density, and the mean negative log-likelihoods of z, `train` and `val`, an epoch each.

    Raises:
        InputError: as `realnvp.fit`, or representations that are not finite.
    """
    mean, scale = _statistics(z_train)
    z_train, z_val = ((z - mean) / scale for z in (z_train, z_val))
    model, history = realnvp.fit(key, z_train, z_val, **settings)
    constant = np.log(scale).sum()
    return Density(mean, scale, model), {name: loss + constant for name, loss in history.items()}


def _statistics(z: Array) -> tuple[Array, Array]:
    """Mean and scale of every dimension, [D] each; summed in float64."""
    z = np.asarray(z)
    broken = np.count_nonzero(~np.isfinite(z).all(1))
    if broken or not len(z):
        raise InputError(
            f"representations: expected finite numbers, found {broken} of {len(z)} with NaN or "
            "infinity; train the encoder again, with a smaller learning rate"
        )
    mean, deviation = np.mean(z, 0, dtype=np.float64), np.std(z, 0, dtype=np.float64)
    return jnp.float32(mean), jnp.float32(deviation + EPSILON)


def save(path: Path, density: Density) -> None:
    """Write an .npz of plain arrays."""
    with replacing(path) as aside:
        np.savez(aside, kind=type(density.model).__name__, **arrays(density))


def arrays(density: Density) -> dict[str, Array]:
    """The arrays of a density by name; with the name of its model's type they are all of it."""
    return {"mean": density.mean, "scale": density.scale, **density.model._asdict()}


def byte_size(size: int, *, components: Sequence[int], blocks: int, hidden: int) -> int:
    """What mixtures and a flow of representations [N, size] take on disk.

    Args:
        size: D.
        components: K of each mixture.
        blocks: of the flow, as `hidden`.
        hidden: see `realnvp.init`.
    """
    mixtures = sum(components) * (1 + size + size**2) * np.dtype(np.float32).itemsize
    shapes = jax.eval_shape(
        lambda: realnvp.init(jax.random.key(0), size, blocks=blocks, hidden=hidden)
    )
    flow = sum(array.size * array.dtype.itemsize for array in shapes)
    statistics = 2 * size * np.dtype(np.float32).itemsize
    return mixtures + flow + (len(components) + 1) * statistics


def from_arrays(kind: str, found: Mapping[str, np.ndarray]) -> Density:
    """The density of `arrays`, and of the name of its model's type.

    Raises:
        KeyError, TypeError, ValueError: they are not those of a density.
    """
    model_type, _ = MODULES[kind]
    mean, scale = (jnp.asarray(found[name]) for name in ("mean", "scale"))
    own = {name: jnp.asarray(x) for name, x in found.items() if name not in ("mean", "scale")}
    density = Density(mean, scale, model_type(**own))
    nll = jax.eval_shape(log_prob, density, jnp.zeros((1, len(mean))))  # the shapes fit together
    if nll.dtype != jnp.float32:
        raise ValueError(f"numbers of type {nll.dtype}")
    return density


def load(path: Path) -> Density:
    """Read what `save` wrote.

    Raises:
        InputError: the file is missing, damaged, or does not hold a density.
    """
    expected, remedy = "a density written by this package", "remove it and fit the density again"
    found = read_arrays(path, expected, remedy)
    try:
        return from_arrays(str(found.pop("kind")), found)
    except (ValueError, TypeError, KeyError) as fault:
        raise InputError(f"{path}: expected {expected}, found {cause(fault)}; {remedy}") from fault
