"""The stages of a study in their order. Each first does what it needs and what is not done yet."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ml_collections import ConfigDict

from cradl_jax.devices.processes import broadcast_from_first, is_first
from cradl_jax.errors import InputError
from cradl_jax.names import BASELINE, CRADL, FAE, METHODS, has_encoder
from cradl_jax.storage.integrity import is_complete
from experiments.study import (
    data_sets,
    evaluation,
    fitting,
    foreign,
    phantom_scans,
    preprocessing,
    runs,
    thresholds,
    training,
    written_maps,
)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Announce a stage and how long it took, in the first process."""
    say = print if is_first() else lambda *_, **__: None
    say(f"== {name}", flush=True)
    started = time.monotonic()
    yield
    say(f"   {time.monotonic() - started:.0f} s", flush=True)


def require_slices(config: ConfigDict, workdir: Path) -> None:
    """Slice the scans unless all slices are there; the scans may be elsewhere then.

    Raises:
        InputError: a method's encoder is missing, so that slices would be made in vain.
    """
    broadcast_from_first(lambda: runs.require_encoder(config, workdir, (config.seed,)))
    stores = [data_sets.store_path(workdir, name) for name in data_sets.names(config)]
    if not broadcast_from_first(lambda: all(map(is_complete, stores))):
        slice_scans(config, workdir)


def slice_scans(config: ConfigDict, workdir: Path) -> None:
    """Slice the scans of all data sets, those of a phantom once they are made."""
    if "phantom" in config:
        with stage("phantom"):
            broadcast_from_first(lambda: phantom_scans.make(config, workdir))
    with stage("preprocess"):
        broadcast_from_first(lambda: preprocessing.preprocess(config, workdir))


def train(config: ConfigDict, workdir: Path, method: str) -> None:
    """Train a method, or continue its training; a feature autoencoder after its encoder."""
    require_slices(config, workdir)
    if method == FAE and CRADL in config.methods:
        train(config, workdir, CRADL)
    run = runs.folder(workdir, config.seed, method)
    if not broadcast_from_first(lambda: is_complete(run)):
        with stage(f"train {method}, seed {config.seed}"):
            training.fit(config, workdir, method, resume=True)


def train_all(config: ConfigDict, workdir: Path, among: Sequence[str], resume: bool) -> None:
    """Train the config's methods that are `among` some, those first whose encoder others take.

    With `resume` continue, see `training.fit`.

    Raises:
        InputError: it has none of them.
    """
    chosen = [method for method in config.methods if method in among]
    if not chosen:
        raise InputError(
            f"config.methods: expected {' or '.join(among)}, found {', '.join(config.methods)}; "
            f"add --config.methods={among[0]}, or train other methods with experiments.train"
        )
    require_slices(config, workdir)
    for method in sorted(chosen, key=METHODS.index):
        training.fit(config, workdir, method, resume)


def fit_densities(config: ConfigDict, workdir: Path, method: str) -> None:
    """Fit the densities of a method, or of the baselines; one without an encoder has none.

    Raises:
        InputError: a device has no room for the memory of patches.
    """
    broadcast_from_first(lambda: fitting.require_device_room(config))
    if method == BASELINE:
        require_slices(config, workdir)
    else:
        train(config, workdir, method)
    if not has_encoder(method):
        return
    with stage(f"densities of {method}, seed {config.seed}"):
        if method == BASELINE:
            fitting.fit_baselines(config, workdir)
        else:
            fitting.fit(config, workdir, method)


def find_thresholds(config: ConfigDict, workdir: Path, method: str) -> None:
    """Find the label-free thresholds of a method, or of the baselines."""
    fit_densities(config, workdir, method)
    with stage(f"thresholds of {method}, seed {config.seed}"):
        thresholds.fit(config, workdir, method)


def evaluate(config: ConfigDict, workdir: Path, method: str) -> None:
    """Evaluate a method, or the baselines."""
    find_thresholds(config, workdir, method)
    with stage(f"evaluate {method}, seed {config.seed}"):
        evaluation.evaluate(config, workdir, method)


def evaluate_foreign(
    config: ConfigDict, workdir: Path, method: str, source: foreign.Source
) -> None:
    """Take in the maps of a foreign method, and evaluate it as ours."""
    foreign.check_name(method)
    require_slices(config, workdir)
    with stage(f"maps of {method}, seed {config.seed}"):
        foreign.take_in(config, workdir, method, source)
    with stage(f"thresholds of {method}, seed {config.seed}"):
        thresholds.fit(config, workdir, method)
    with stage(f"evaluate {method}, seed {config.seed}"):
        evaluation.evaluate(config, workdir, method)


def write_maps(config: ConfigDict, workdir: Path, method: str) -> None:
    """Write the maps of a method, or of the baselines, for other tools."""
    with stage(f"maps of {method}, seed {config.seed}"):
        written_maps.write(config, workdir, method)
