"""Where the runs of a study lie under its working directory, and how to load them for a config."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from cradl_jax import scoring
from cradl_jax.devices import processes
from cradl_jax.evaluation.results import BASELINE
from cradl_jax.runs import contents
from cradl_jax.runs import folder as run_folder
from cradl_jax.storage.manifest import check_manifest
from experiments.study import data_sets, settings


def folder(workdir: Path, seed: int, method: str) -> Path:
    """The run folder of one seed and method."""
    return workdir / f"seed{seed}" / method


def trained(config: ConfigDict, workdir: Path, method: str) -> contents.Model:
    """The best checkpoint of a run.

    Raises:
        InputError: it is not trained, or of another method, model or data than the config's.
    """
    run = folder(workdir, config.seed, method)
    data = data_sets.stores(config, workdir)[data_sets.HEALTHY].manifest["fingerprint"]
    check_manifest(run, settings.of_run(config, method), data)
    return run_folder.read_model(run)


def scorers(
    config: ConfigDict, workdir: Path, method: str
) -> tuple[Sequence[tuple[scoring.Scorer, Any]], str]:
    """A method's scorers, each with its parameters, and a fingerprint of all that they rest on.

    Raises:
        InputError: the run or one of its densities is missing, or they do not belong together.
    """
    if method == BASELINE:
        return [(scoring.baseline, None)], BASELINE
    run = folder(workdir, config.seed, method)
    model = trained(config, workdir, method)
    check_manifest(run / "densities", settings.of_densities(config))
    fitted = run_folder.read_densities(run, model)
    return contents.scorers(model, fitted), contents.identity_of(model.variables, fitted)


def in_batches(
    config: ConfigDict, function: Callable, params: Any, arrays: Any, rows: np.ndarray, label: str
) -> Iterator[Any]:
    """`scoring.in_batches` on the devices of all processes, with a progress bar."""
    size = config.score.batch_size
    results = scoring.in_batches(
        function, params, arrays, rows, batch_size=size, devices=jax.devices()
    )
    bar = {"desc": label, "total": -(-len(rows) // size), "unit": "batch", "leave": False}
    return iter(tqdm(results, **bar, disable=not processes.is_first()))
