"""What the healthy training scans of a study look like, for the check of a new scan."""

import os
from pathlib import Path

from ml_collections import ConfigDict

from cradl_jax.data.scans.volumes import read_volume
from cradl_jax.data.scans.workers import map_scans
from cradl_jax.data.slices.scan_statistics import Description, describe
from cradl_jax.data.slices.store import SliceStore
from cradl_jax.errors import InputError
from cradl_jax.prediction import input_qc
from cradl_jax.storage.files import write_json
from cradl_jax.storage.integrity import with_hash, without_hash
from cradl_jax.storage.reading import read_json
from experiments.cli.locking import exclusive


def reference(config: ConfigDict, workdir: Path, healthy: SliceStore) -> input_qc.Reference:
    """What is usual among the training scans; they are read once, for all methods and seeds."""
    path, data = workdir / "training_scans.json", healthy.manifest["fingerprint"]
    with exclusive("the training scans", workdir):
        kept = read(path) if path.exists() else {}
        if kept.get("data") != data:
            found = input_qc.summarize(descriptions(config, healthy))
            kept = {"data": data, "usual": found.model_dump()}
            write_json(path, with_hash(kept))
    return input_qc.Reference(**kept["usual"])


def read(path: Path) -> dict:
    """The content of training_scans.json.

    Raises:
        InputError: it was changed since it was written.
    """
    try:
        return without_hash(read_json(path))
    except ValueError as fault:
        raise InputError(
            f"{path}: expected what the training scans look like, found {fault}; remove the file"
        ) from fault


def descriptions(config: ConfigDict, healthy: SliceStore) -> list[Description]:
    """What each training scan looks like; the scans themselves are read."""
    folder = healthy.path.resolve()
    files = [folder / scan["image"] for scan in healthy.records if scan["split"] == "train"]
    workers = config.data.workers or os.cpu_count() or 1
    return list(map_scans(described, files, workers, "describe training scans"))


def described(path: Path) -> Description:
    """What the scan at `path` looks like."""
    return describe(read_volume(path))
