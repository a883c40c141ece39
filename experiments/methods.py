"""CRADL, VAE and ceVAE: each a model, what it minimises, and the scores of its own (Table 9).

They share encoder, augmentation, training loop and densities; a config's `overrides` hold the
settings in which a method differs from the others.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from cradl_jax import augment, objectives, scoring
from cradl_jax.errors import InputError
from cradl_jax.models.encoder import Encoder
from cradl_jax.models.simclr import SimCLR
from cradl_jax.models.vae import VAE, Decoder
from cradl_jax.parallel import AXIS


class Method(NamedTuple):
    """What sets a method apart.

    Attributes:
        model: has `encode`, the representation z = Enc(x).
        objective: what training minimises.
        scorer: its own scores and heatmaps beside those of densities, None where it has none.
    """

    model: nn.Module
    objective: objectives.Objective
    scorer: scoring.Scorer | None


def build(config: ConfigDict, method: str) -> Method:
    """The method `method` with its own settings, see `settings_of`.

    Raises:
        InputError: no such method.
    """
    if method not in METHODS:
        raise InputError(f"config.methods: expected some of {list(METHODS)}, found {method!r}")
    return METHODS[method](settings_of(config, method))


def settings_of(config: ConfigDict, method: str) -> ConfigDict:
    """The config with the overrides of a method in place."""
    own = config.copy_and_resolve_references()
    own.update(config.overrides[method].to_dict())
    return own


def cradl(config: ConfigDict) -> Method:
    """Section 3.1: an encoder and a projection head, contrasted by NT-Xent."""
    model = SimCLR(_encoder(config, config.model.latent), tuple(config.model.head))
    objective = objectives.simclr(model, _view(config), config.loss.temperature, AXIS)
    return Method(model, objective, None)


def vae(config: ConfigDict) -> Method:
    """Equation 7: reconstruction and KL-divergence."""
    model = _vae(config)
    objective = objectives.vae(model, _view(config), config.loss.beta)
    return Method(model, objective, scoring.vae(model, config.loss.beta))


def cevae(config: ConfigDict) -> Method:
    """Equation 8: a VAE that also restores what was masked."""
    model = _vae(config)
    objective = objectives.cevae(model, _view(config), config.loss.beta, config.loss.gamma)
    return Method(model, objective, scoring.vae(model, config.loss.beta))


METHODS: dict[str, Callable[[ConfigDict], Method]] = {"cradl": cradl, "vae": vae, "cevae": cevae}


def _vae(config: ConfigDict) -> VAE:
    decoder = Decoder(config.data.size, config.model.features, _dtype(config), AXIS)
    return VAE(_encoder(config, 2 * config.model.latent), decoder)


def _encoder(config: ConfigDict, outputs: int) -> Encoder:
    return Encoder(config.model.features, outputs, _dtype(config), AXIS)


def _dtype(config: ConfigDict) -> jnp.dtype:
    """Precision of the networks' products."""
    if config.model.dtype == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    return jnp.dtype(config.model.dtype)


def _view(config: ConfigDict) -> augment.Transform:
    """The random transforms of training."""
    values = config.augment
    return augment.views(
        mirroring=values.mirror,
        shift=values.shift,
        scale=tuple(values.scale),
        rotation=values.rotation,
        noise=values.noise,
    )
