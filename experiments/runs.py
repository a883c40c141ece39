"""Where the parts of a study lie under its working directory, and how a config builds them."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from cradl_jax import augment, checkpoints, densities, scoring
from cradl_jax.models.encoder import Encoder
from cradl_jax.models.simclr import SimCLR
from cradl_jax.objectives import Variables
from cradl_jax.parallel import AXIS
from cradl_jax.report import BASELINE

SETTINGS = ("model", "augment", "train")  # the parts of a config that a trained run depends on


class Trained(NamedTuple):
    """A run's best model.

    Attributes:
        encode: z = Enc(x), `(variables, images [N, H, W]) -> [N, latent]`.
        variables: `params` and `batch_stats`.
        identity: fingerprint of the variables, which its densities carry on.
    """

    encode: scoring.Encode
    variables: Variables
    identity: str


def folder(workdir: Path, seed: int, method: str) -> Path:
    """The run folder of one seed and method."""
    return workdir / f"seed{seed}" / method


def settings(config: ConfigDict) -> dict:
    """What a trained run depends on, as plain values."""
    parts = {name: config[name].to_dict() for name in SETTINGS}
    return {"seed": config.seed, "size": config.data.size, **parts}


def dtype(config: ConfigDict) -> jnp.dtype:
    """Precision of the networks' products."""
    if config.model.dtype == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    return jnp.dtype(config.model.dtype)


def simclr(config: ConfigDict) -> SimCLR:
    """The encoder and projection head of the config."""
    encoder = Encoder(config.model.features, config.model.latent, dtype(config), AXIS)
    return SimCLR(encoder, tuple(config.model.head))


def initial_variables(config: ConfigDict, model) -> Variables:
    """Fresh `params` and `batch_stats`, drawn from the config's seed."""
    images = jnp.zeros((1, config.data.size, config.data.size))
    return jax.jit(model.init)(jax.random.key(config.seed), images)


def view(config: ConfigDict, shift: float) -> augment.Transform:
    """The random transforms of training."""
    values = config.augment
    return augment.views(shift, tuple(values.scale), values.rotation, values.noise)


def trained(config: ConfigDict, workdir: Path, method: str) -> Trained:
    """The best checkpoint of a run.

    Raises:
        InputError: it is not trained, or of another model than the config's.
    """
    run = folder(workdir, config.seed, method)
    checkpoints.check_manifest(run, settings(config))
    model = simclr(config)
    template = jax.eval_shape(lambda: initial_variables(config, model))
    with checkpoints.Checkpoints(run) as kept:
        variables = kept.best(template)

    def encode(variables: Variables, images: jax.Array) -> jax.Array:
        return model.apply(variables, images, method="encode")

    return Trained(encode, variables, checkpoints.fingerprint(variables))


def density_names(config: ConfigDict) -> list[str]:
    """The configured densities: gmm1, gmm2, ..."""
    return [f"gmm{components}" for components in config.gmm.components]


def density_settings(config: ConfigDict) -> dict:
    """What the densities of a run depend on, as plain values."""
    return {"gmm": config.gmm.to_dict()}


def in_batches(
    config: ConfigDict, function: Callable, params: Any, arrays: Any, rows: np.ndarray, label: str
) -> Iterator[Any]:
    """`scoring.in_batches` on this machine's devices, with a progress bar."""
    size = config.score.batch_size
    results = scoring.in_batches(
        function, params, arrays, rows, batch_size=size, devices=jax.local_devices()
    )
    total = -(-len(rows) // size)
    return iter(tqdm(results, desc=label, total=total, unit="batch", leave=False))


class Named(NamedTuple):
    """A scorer, its parameters, and the names of its heatmaps.

    Attributes:
        names: of the heatmaps that it makes.
        scorer: see `cradl_jax.scoring`.
        params: what it takes first.
    """

    names: tuple[str, ...]
    scorer: scoring.Scorer
    params: Any


def scorers(config: ConfigDict, workdir: Path, method: str) -> tuple[list[Named], str]:
    """A method's scorers and the fingerprint of all that they are made from.

    Raises:
        InputError: the run or one of its densities is missing, or they do not belong together.
    """
    if method == BASELINE:
        return [Named(("intensity",), scoring.baseline, None)], BASELINE
    encode, variables, identity = trained(config, workdir, method)
    fitted = folder(workdir, config.seed, method) / "densities"
    checkpoints.check_manifest(fitted, density_settings(config), identity)
    found, digest = [], hashlib.sha256(identity.encode())
    for name in density_names(config):
        path = fitted / f"{name}.npz"
        density = densities.load(path)
        digest.update(path.read_bytes())
        found.append(Named((name,), scoring.nll(encode, name), (variables, density)))
    return found, digest.hexdigest()
