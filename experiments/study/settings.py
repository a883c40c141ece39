"""What a config says of one method: its settings, its network, and what training minimizes.

The methods share encoder, augmentation, training loop and densities; a config's `overrides` hold
the settings in which one differs from the others.
"""

from ml_collections import ConfigDict

from cradl_jax import augment, methods, names, objectives
from cradl_jax.devices.parallel import AXIS
from cradl_jax.errors import InputError
from cradl_jax.storage.manifest import differences
from experiments.study.config_schema import Parts

PARTS = tuple(Parts.model_fields)  # of a config, that a run depends on
ENCODER = ("features", "latent", "dtype")  # of a model, that an encoder depends on
RESTORATION = "restoration"  # on this one only runs that restore slices depend


def of_method(config: ConfigDict, method: str) -> ConfigDict:
    """Return the config with the overrides of a method in place.

    Raises:
        InputError: no such method.
    """
    methods.check(method)
    own = config.copy_and_resolve_references()
    own.update(config.overrides[method].to_dict())
    return own


def of_run(config: ConfigDict, method: str) -> dict:
    """Return what a trained run depends on, as plain values."""
    own = of_method(config, method)
    depends = [name for name in PARTS if name != RESTORATION or method in names.RESTORERS]
    parts = {name: own[name].to_dict() for name in depends}
    return {**of_slices(config, method), **parts}


def of_slices(config: ConfigDict, method: str) -> dict:
    """Return what a run is and which slices it takes, as plain values; all of the baselines."""
    slices = {"size": config.data.size, "contrast": config.data.contrast}
    return {"method": method, "seed": config.seed, **slices}


def of_densities(config: ConfigDict) -> dict:
    """Return what the densities of a run depend on, as plain values; nothing of those left out."""
    flow = {names.FLOW: config.flow.to_dict()} if config.flow.blocks else {}
    memory = {names.MEMORY: config.memory.to_dict()} if config.memory.size else {}
    return {"gmm": config.gmm.to_dict(), **flow, **memory}


def of_heatmaps(config: ConfigDict, method: str) -> dict:
    """Return what heatmaps depend on beyond the paper, as plain values; none where that is off."""
    depends = ["neighbours", *(["restoration_steps"] if method in names.VAES else [])]
    return {name: config.score[name] for name in depends if config.score[name]}


def of_baselines(config: ConfigDict) -> dict:
    """Return what the baselines' Gaussians depend on beside the slices, as plain values."""
    return {"size": config.data.size, "patches": names.PATCHES}


def network(config: ConfigDict, method: str) -> methods.Network:
    """Build the network of `method`.

    Raises:
        InputError: no such method, or a feature autoencoder whose encoder is not CRADL's.
    """
    model = of_method(config, method).model
    if method == names.FAE:
        theirs = of_method(config, names.CRADL).model
        own, expected = ({name: one[name] for name in ENCODER} for one in (model, theirs))
        if differing := differences(own, expected):
            raise InputError(
                f"config.overrides.{method}.model: expected that of {names.CRADL}, whose encoder "
                f"it takes, found another ({'; '.join(differing)}); leave it out"
            )
    return methods.network(method, size=config.data.size, **model)


def objective(config: ConfigDict, method: str, model: methods.Network) -> objectives.Objective:
    """Build what training minimizes: NT-Xent (Section 3.1), equation 7 or 8, or beyond the paper.

    Raises:
        InputError: the views of a method that changes slices inside the brain alone have noise.
    """
    own = of_method(config, method)
    loss, transforms = own.loss, own.augment
    if method in (names.CUTPASTE, *names.RESTORERS) and transforms.noise:
        raise InputError(
            f"config.overrides.{method}.augment.noise: expected 0, since noise would hide where "
            f"the brain ends, found {transforms.noise}; leave it 0"
        )
    view = augment.views(
        mirroring=transforms.mirror,
        shift=transforms.shift,
        scale=tuple(transforms.scale),
        rotation=transforms.rotation,
        noise=transforms.noise,
    )
    if method == names.CRADL:
        return objectives.simclr(model, view, loss.temperature, AXIS)
    if method == names.CUTPASTE:
        return objectives.cutpaste(model, view)
    if method == names.MAE:
        return objectives.mae(model, view)
    if method == names.DAE:
        return objectives.dae(model, view, own.restoration.noise)
    if method in names.RESTORERS:
        return objectives.disyre(model, view, AXIS)
    if method == names.FAE:
        return objectives.fae(model, view)
    if method == names.VAE:
        return objectives.vae(model, view, loss.beta)
    return objectives.cevae(model, view, loss.beta, loss.gamma)
