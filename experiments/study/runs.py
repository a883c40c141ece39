"""Where the runs of a study lie under its working directory, and how to load them for a config."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from cradl_jax import scoring
from cradl_jax.data.slices.store import SliceStore
from cradl_jax.devices import batches, processes
from cradl_jax.errors import InputError
from cradl_jax.names import BASELINE, CRADL, FAE, OURS, has_encoder
from cradl_jax.runs import checkpoints, contents
from cradl_jax.runs import folder as run_folder
from cradl_jax.storage.integrity import is_complete
from cradl_jax.storage.manifest import check_manifest
from experiments.study import settings, stored_maps

Source = scoring.Scorer | stored_maps.StoredMaps
"""What gives scores and heatmaps of slices: computes them, or looks them up."""


def folder(workdir: Path, seed: int, method: str) -> Path:
    """Return the run folder of one seed and method."""
    return workdir / f"seed{seed}" / method


def check(config: ConfigDict, workdir: Path, method: str, healthy: SliceStore) -> Path:
    """Return the folder of a run that was trained as the config says, on the healthy slices.

    Raises:
        InputError: it is not trained, or of another method, model or data.
    """
    run = folder(workdir, config.seed, method)
    check_manifest(run, *origin(config, workdir, method, healthy))
    return run


def origin(config: ConfigDict, workdir: Path, method: str, healthy: SliceStore) -> tuple[dict, str]:
    """Return what a run depends on, as plain values, and the fingerprint of its data.

    That of a feature autoencoder depends on the encoder, too.

    Raises:
        InputError: the encoder is missing, or not as the config says.
    """
    depends = settings.of_run(config, method)
    if method == FAE:
        depends["encoder"] = checkpoints.read_fingerprint(encoder_of(config, workdir, healthy))
    return depends, healthy.manifest["fingerprint"]


def encoder_of(config: ConfigDict, workdir: Path, healthy: SliceStore) -> Path:
    """Return the folder of the run whose encoder a feature autoencoder takes, CRADL's; as `check`.

    Raises:
        InputError: it is not there, or not as the config says.
    """
    _require_trained(workdir, config.seed)
    return check(config, workdir, CRADL, healthy)


def require_encoder(config: ConfigDict, workdir: Path, seeds: Sequence[int]) -> None:
    """Raise an InputError if a feature autoencoder has no encoder, and the study trains none."""
    if FAE in config.methods and CRADL not in config.methods:
        for seed in seeds:
            _require_trained(workdir, seed)


def _require_trained(workdir: Path, seed: int) -> None:
    """Raise an InputError unless the run is finished whose encoder a feature autoencoder takes."""
    run = folder(workdir, seed, CRADL)
    if not is_complete(run):
        command = f"simclr --config.methods={CRADL} --config.seed={seed}"
        raise InputError(
            f"config.methods: {FAE} needs the encoder of {CRADL}, seed {seed}, found no finished "
            f"run in {run}; {run_folder.AGAIN.format(command)} first"
        )


def fingerprint(config: ConfigDict, workdir: Path, method: str, healthy: SliceStore) -> str:
    """Return the fingerprint of what a method's scores rest on, its network and densities.

    They are not read: see `runs.folder.read_fingerprint`.

    Raises:
        InputError: the run or its densities are missing, or they do not belong together.
    """
    if method not in OURS:
        return stored_maps.read_fingerprint(folder(workdir, config.seed, method), healthy)
    if method == BASELINE:
        return run_folder.read_baseline_fingerprint(_baselines(config, workdir, healthy))
    return run_folder.read_fingerprint(_with_densities(config, workdir, method, healthy))


def scorers(
    config: ConfigDict, workdir: Path, method: str, healthy: SliceStore
) -> Sequence[tuple[scoring.Scorer, Any]]:
    """Read the scorers of one of our methods, with their parameters; otherwise as `fingerprint`."""
    if method == BASELINE:
        baselines = run_folder.read_baselines(_baselines(config, workdir, healthy))
        return [(scoring.baseline, baselines)]
    run = _with_densities(config, workdir, method, healthy)
    variables, fitted = run_folder.read_variables(run), run_folder.read_densities(run)
    steps = config.score.restoration_steps
    return contents.scorers(settings.of_run(config, method), variables, *fitted, steps)


def sources(
    config: ConfigDict, workdir: Path, method: str, healthy: SliceStore
) -> Sequence[tuple[Source, Any]]:
    """Read the scorers of a method, or the stored maps of a foreign one; see `scorers`."""
    if method not in OURS:
        return [(stored_maps.read(folder(workdir, config.seed, method)), None)]
    return scorers(config, workdir, method, healthy)


def _with_densities(config: ConfigDict, workdir: Path, method: str, healthy: SliceStore) -> Path:
    """Return the folder of a run as `check`, whose densities too are as the config says."""
    run = check(config, workdir, method, healthy)
    if has_encoder(method):
        check_manifest(run / "densities", settings.of_densities(config))
    return run


def _baselines(config: ConfigDict, workdir: Path, healthy: SliceStore) -> Path:
    """Return the folder of the baselines, which were fitted to the healthy slices."""
    run = folder(workdir, config.seed, BASELINE)
    if (run / "densities").exists():  # else whoever reads them says what is missing
        check_manifest(
            run / "densities", settings.of_baselines(config), healthy.manifest["fingerprint"]
        )
    return run


def in_batches(
    config: ConfigDict, function: Callable, params: Any, arrays: Any, rows: np.ndarray, label: str
) -> Iterator[Any]:
    """Run `batches.in_batches` on the devices of all processes, with a progress bar."""
    size = config.score.batch_size
    results = batches.in_batches(
        function, params, arrays, rows, batch_size=size, devices=jax.devices()
    )
    bar = {"desc": label, "total": -(-len(rows) // size), "unit": "batch", "leave": False}
    return iter(tqdm(results, **bar, disable=not processes.is_first()))
