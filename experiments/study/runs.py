"""Where the runs of a study lie under its working directory, and how to load them for a config."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from cradl_jax import processes, scoring
from cradl_jax.data.slices import SliceStore
from cradl_jax.manifest import check_manifest
from cradl_jax.report import BASELINE
from cradl_jax.runs import folder as run_folder
from cradl_jax.runs import parts
from experiments import preprocess, settings


def folder(workdir: Path, seed: int, method: str) -> Path:
    """The run folder of one seed and method."""
    return workdir / f"seed{seed}" / method


def data_sets(config: ConfigDict, workdir: Path) -> dict[str, SliceStore]:
    """The slices of every data set, the healthy one first; all processes have the same."""
    opened = preprocess.stores(config, workdir)
    processes.agree({f"slices of {n}": s.manifest["fingerprint"] for n, s in opened.items()})
    return opened


def trained(config: ConfigDict, workdir: Path, method: str) -> parts.Model:
    """The best checkpoint of a run.

    Raises:
        InputError: it is not trained, or of another method, model or data than the config's.
    """
    run = folder(workdir, config.seed, method)
    data = preprocess.stores(config, workdir)[preprocess.HEALTHY].manifest["fingerprint"]
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
    return parts.scorers(model, fitted), parts.identity_of(model.variables, fitted)


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
