"""Where the parts of a study lie under its working directory, and how to load them."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from cradl_jax import checkpoints, densities, scoring
from cradl_jax.objectives import Variables
from cradl_jax.report import BASELINE
from experiments import methods

SETTINGS = ("model", "augment", "train", "loss")  # the parts of a config that a run depends on


class Trained(NamedTuple):
    """A run's best model.

    Attributes:
        encode: z = Enc(x), `(variables, images [N, H, W]) -> [N, latent]`.
        scorer: the method's own scores, None where it has none.
        variables: `params` and `batch_stats`.
        identity: fingerprint of the variables, which its densities carry on.
    """

    encode: scoring.Encode
    scorer: scoring.Scorer | None
    variables: Variables
    identity: str


def folder(workdir: Path, seed: int, method: str) -> Path:
    """The run folder of one seed and method."""
    return workdir / f"seed{seed}" / method


def settings(config: ConfigDict, method: str) -> dict:
    """What a trained run depends on, as plain values."""
    own = methods.settings_of(config, method)
    parts = {name: own[name].to_dict() for name in SETTINGS}
    return {"method": method, "seed": config.seed, "size": config.data.size, **parts}


def initial_variables(config: ConfigDict, model) -> Variables:
    """Fresh `params` and `batch_stats`, drawn from the config's seed."""
    images = jnp.zeros((1, config.data.size, config.data.size))
    return jax.jit(model.init)(jax.random.key(config.seed), images)


def trained(config: ConfigDict, workdir: Path, method: str) -> Trained:
    """The best checkpoint of a run.

    Raises:
        InputError: it is not trained, or of another method or model than the config's.
    """
    run = folder(workdir, config.seed, method)
    checkpoints.check_manifest(run, settings(config, method))
    model, _, scorer = methods.build(config, method)
    template = jax.eval_shape(lambda: initial_variables(config, model))
    with checkpoints.Checkpoints(run) as kept:
        variables = kept.best(template)

    def encode(variables: Variables, images: jax.Array) -> jax.Array:
        return model.apply(variables, images, method="encode")

    return Trained(encode, scorer, variables, checkpoints.fingerprint(variables))


def density_names(config: ConfigDict) -> list[str]:
    """The configured densities: gmm1, gmm2, ..., flow."""
    return [*(f"gmm{components}" for components in config.gmm.components), "flow"]


def density_settings(config: ConfigDict) -> dict:
    """What the densities of a run depend on, as plain values."""
    return {"gmm": config.gmm.to_dict(), "flow": config.flow.to_dict()}


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


def scorers(
    config: ConfigDict, workdir: Path, method: str
) -> tuple[list[tuple[scoring.Scorer, Any]], str]:
    """A method's scorers, each with its parameters, and a fingerprint of all that they rest on.

    Raises:
        InputError: the run or one of its densities is missing, or they do not belong together.
    """
    if method == BASELINE:
        return [(scoring.baseline, None)], BASELINE
    model = trained(config, workdir, method)
    fitted = folder(workdir, config.seed, method) / "densities"
    checkpoints.check_manifest(fitted, density_settings(config), model.identity)
    paths = {name: fitted / f"{name}.npz" for name in density_names(config)}
    loaded = {name: densities.load(path) for name, path in paths.items()}
    digest = hashlib.sha256(model.identity.encode())
    for path in paths.values():
        digest.update(path.read_bytes())
    found = [(scoring.nll(model.encode), (model.variables, loaded))]
    if model.scorer is not None:
        found.append((model.scorer, model.variables))
    return found, digest.hexdigest()
