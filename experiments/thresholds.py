"""Find what is usual among healthy scans: thresholds without labels, percentiles, their looks.

    python -m experiments.thresholds --config=configs/phantom.py [--workdir=runs/phantom]

Needs the trained encoders of the config's methods and their densities. Scores the healthy
validation slices and writes WORKDIR/seed<seed>/<method>/thresholds/thresholds.json, which
`experiments.predict` reads: for each slice score and heatmap the thresholds at 1, 5 and 10 % false
positives (of all slices; of all their pixels, inside and outside the brain, as the paper counts
them), percentiles of the slices by height and of the scans, how to slice a scan, and what the
training scans look like.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from cradl_jax import scoring, thresholds
from cradl_jax.checkpoints import read_manifest, write_json, write_manifest
from cradl_jax.data import familiarity
from cradl_jax.data.description import Description, describe, states_orientation
from cradl_jax.data.slices import SliceStore
from cradl_jax.data.volumes import read_volume
from cradl_jax.data.workers import map_scans
from cradl_jax.errors import InputError
from experiments import app, evaluate, preprocess, runs

FILE = "thresholds.json"


class Thresholds(NamedTuple):
    """The content of thresholds.json.

    Attributes:
        slicing: how a scan is sliced: as those of the first anomalous data set, at the training
            scans' pixel size.
        slices: what is usual of each slice score.
        heatmaps: thresholds of each post-processed heatmap by rate.
        training: what is usual among the training scans.
    """

    slicing: dict[str, Any]
    slices: dict[str, thresholds.Usual]
    heatmaps: dict[str, dict[str, float]]
    training: familiarity.Reference


def fit(config: ConfigDict, workdir: Path, method: str) -> None:
    """Write the thresholds of one method and seed, unless they are there."""
    folder = place(config, workdir, method)
    scorers, identity = runs.scorers(config, workdir, method)
    healthy = next(iter(preprocess.stores(config, workdir).values()))
    _, first, *_ = preprocess.names(config)
    settings = {"method": method, "data": healthy.manifest["fingerprint"]}
    settings["slicing"] = preprocess.slicing(config, first) | {
        "pixel_mm": healthy.pixel_mm("train")
    }
    write_manifest(folder, settings, identity)
    if (folder / FILE).exists():
        return
    slices, heatmaps = {}, {}
    for scorer, params in scorers:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            of_slices, of_maps = measure(config, healthy, scorer, params, Path(temporary))
        slices, heatmaps = slices | of_slices, heatmaps | of_maps
    training = familiarity.summarize(descriptions(config, healthy))
    content = {
        "slicing": settings["slicing"],
        "slices": {name: usual._asdict() for name, usual in slices.items()},
        "heatmaps": heatmaps,
        "training": training._asdict(),
    }
    write_json(folder / FILE, content)


def place(config: ConfigDict, workdir: Path, method: str) -> Path:
    """The folder of a run's thresholds."""
    return runs.folder(workdir, config.seed, method) / "thresholds"


def load(folder: Path, identity: str) -> Thresholds:
    """The thresholds of a run.

    Args:
        folder: see `place`.
        identity: fingerprint of the run's models, see `runs.scorers`.

    Raises:
        InputError: there are none, they are damaged, or they are of other models.
    """
    command = "python -m experiments.thresholds with the same --config and --workdir"
    if not (folder / FILE).exists():
        raise InputError(f"{folder / FILE}: expected thresholds, found no such file; run {command}")
    if read_manifest(folder)["fingerprint"] != identity:
        raise InputError(
            f"{folder}: expected thresholds of this run's models, found those of others; remove "
            f"that folder and run {command}"
        )
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        slices = {name: thresholds.Usual(**usual) for name, usual in content["slices"].items()}
        training = familiarity.Reference(**content["training"])
        return Thresholds(content["slicing"], slices, content["heatmaps"], training)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise InputError(
            f"{folder / FILE}: expected thresholds, found a damaged file ({fault}); remove that "
            f"folder and run {command}"
        ) from fault


def measure(
    config: ConfigDict, healthy: SliceStore, scorer: scoring.Scorer, params: Any, folder: Path
) -> tuple[dict[str, thresholds.Usual], dict[str, dict[str, float]]]:
    """What is usual of each score, and the thresholds of each heatmap, on validation slices."""
    rows = healthy.rows("val")
    scores, files = evaluate.score(config, healthy, rows, scorer, params, folder, "healthy_val")
    slices = {
        name: thresholds.summarize(values, healthy.position[rows], healthy.scans[rows])
        for name, values in scores.items()
    }
    n_pixels = len(rows) * healthy.images[0].size
    heatmaps = {}
    for name, path in files.items():
        blocks = evaluate.voxels(path, healthy, rows)
        heatmaps[name] = thresholds.at_rates((values for values, _ in blocks()), n_pixels)
    return slices, heatmaps


def descriptions(config: ConfigDict, healthy: SliceStore) -> list[Description]:
    """What each training scan looks like; the scans themselves are read."""
    folder = healthy.path.resolve()
    files = [folder / scan["image"] for scan in healthy.records if scan["split"] == "train"]
    workers = config.data.workers or os.cpu_count() or 1
    return list(map_scans(described, files, workers, "describe training scans"))


def described(path: Path) -> Description:
    """What the scan at `path` looks like."""
    return describe(read_volume(path), oriented=states_orientation(path))


def main(config: ConfigDict, workdir: Path) -> None:
    """Entry point."""
    for method in config.methods:
        fit(config, workdir, method)


if __name__ == "__main__":
    app.run(main)
