"""What a config says of one method: its settings, its network, and what training minimises.

The methods share encoder, augmentation, training loop and densities; a config's `overrides` hold
the settings in which one differs from the others.
"""

from ml_collections import ConfigDict

from cradl_jax import augment, methods, objectives
from cradl_jax.devices.parallel import AXIS

PARTS = ("model", "augment", "train", "loss")  # of a config, that a run depends on


def of_method(config: ConfigDict, method: str) -> ConfigDict:
    """The config with the overrides of a method in place.

    Raises:
        InputError: no such method.
    """
    methods.check(method)
    own = config.copy_and_resolve_references()
    own.update(config.overrides[method].to_dict())
    return own


def of_run(config: ConfigDict, method: str) -> dict:
    """What a trained run depends on, as plain values."""
    own = of_method(config, method)
    parts = {name: own[name].to_dict() for name in PARTS}
    return {"method": method, "seed": config.seed, "size": config.data.size, **parts}


def of_densities(config: ConfigDict) -> dict:
    """What the densities of a run depend on, as plain values."""
    return {"gmm": config.gmm.to_dict(), "flow": config.flow.to_dict()}


def network(config: ConfigDict, method: str) -> methods.Network:
    """The network of `method`."""
    return methods.network(method, size=config.data.size, **of_method(config, method).model)


def objective(config: ConfigDict, method: str, model: methods.Network) -> objectives.Objective:
    """What training minimises: NT-Xent (Section 3.1), or equation 7 or 8."""
    own = of_method(config, method)
    view, loss = _view(own), own.loss
    if method == "cradl":
        return objectives.simclr(model, view, loss.temperature, AXIS)
    if method == "vae":
        return objectives.vae(model, view, loss.beta)
    return objectives.cevae(model, view, loss.beta, loss.gamma)


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
