"""Estimate label-free thresholds and percentiles on healthy validation scans."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cradl_jax.data.slices.scan_statistics import read_descriptions
from cradl_jax.data.slices.store import SliceStore
from cradl_jax.devices import processes
from cradl_jax.evaluation import masks, thresholds
from cradl_jax.evaluation.masks import HealthyMap
from cradl_jax.prediction import input_qc
from cradl_jax.runs.contents import Thresholds
from cradl_jax.runs.folder import THRESHOLDS
from cradl_jax.storage.files import write_json
from cradl_jax.storage.integrity import is_complete, write_checksums
from cradl_jax.storage.manifest import write_manifest
from experiments.cli.locking import exclusive_stage
from experiments.study import data_sets, runs, screening
from experiments.study.scores import HeatmapFiles, brain_maps, brain_voxels, score, voxels
from experiments.study.settings import of_heatmaps


@exclusive_stage("thresholds of {}, seed {seed}")
def fit(config: ConfigDict, workdir: Path, method: str) -> None:
    """Write the thresholds of one method and seed, unless they are there."""
    folder = runs.folder(workdir, config.seed, method) / "thresholds"
    healthy = next(iter(data_sets.stores(config, workdir).values()))
    about = settings(config, healthy, method)
    made_from = runs.fingerprint(config, workdir, method, healthy)
    processes.broadcast_from_first(lambda: write_manifest(folder, about, made_from))
    if processes.broadcast_from_first(lambda: is_complete(folder)):
        return
    slices, heatmaps = {}, {}
    for scorer, params in runs.sources(config, workdir, method, healthy):
        with HeatmapFiles(folder) as files:
            of_slices, of_maps = measure(config, healthy, scorer, params, files)
        slices, heatmaps = slices | of_slices, heatmaps | of_maps

    def write() -> None:
        training = input_qc.summarize(read_descriptions(healthy.path))
        values = Thresholds(
            slicing=about["slicing"],
            slices=slices,
            heatmaps=heatmaps,
            training=training,
            preparation=screening.preparation(healthy),
            **of_heatmaps(config, method),
        )
        write_json(folder / THRESHOLDS, values.model_dump())
        write_checksums(folder, "manifest.json", THRESHOLDS)

    processes.broadcast_from_first(write)


def settings(config: ConfigDict, healthy: SliceStore, method: str) -> dict:
    """Return what the thresholds of a method depend on, as plain values."""
    healthy_set, *anomalous = data_sets.names(config)
    like = anomalous[0] if anomalous else healthy_set
    slicing = data_sets.slicing(config, like)
    if slicing.pop("span") == "volume":  # whose ends, in a new scan, are anywhere
        slicing["offset"] = 0
    data, maps = healthy.manifest["fingerprint"], of_heatmaps(config, method)
    return {"method": method, "data": data, "slicing": slicing, **maps}


def measure(
    config: ConfigDict,
    healthy: SliceStore,
    scorer: runs.Source,
    params: Any,
    files: HeatmapFiles,
) -> tuple[dict[str, thresholds.HealthyScores], dict[str, HealthyMap]]:
    """Summarize each score and each heatmap on healthy validation scans.

    All processes call this together; the first one measures, the others return nothing.
    """
    rows = healthy.rows("val")
    scores = score(config, healthy, rows, scorer, params, files, "healthy_val")
    if not processes.is_first():
        return {}, {}
    slices = {
        name: thresholds.summarize(values, healthy.position[rows], healthy.scans[rows])
        for name, values in scores.items()
    }
    n_pixels, sizes = len(rows) * healthy.images[0].size, brain_voxels(healthy, rows)
    heatmaps = {}
    for name, file in files.named.items():
        pixels = (values for values, _ in voxels(file, healthy, rows)())
        heatmaps[name] = HealthyMap(
            pixels=thresholds.at_rates(pixels, n_pixels),
            masks=masks.find(brain_maps(file, healthy, rows), sizes),
            n_scans=len(sizes),
        )
    return slices, heatmaps
