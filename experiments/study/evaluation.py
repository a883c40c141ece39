"""Evaluate the scores and heatmaps of a run on the anomalous data sets."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from cradl_jax.data.slices.store import SliceStore, anomalous
from cradl_jax.devices import processes
from cradl_jax.evaluation import bootstrap, metrics, results
from cradl_jax.evaluation.masks import BRAIN_RATES
from cradl_jax.evaluation.scan_level import Measures
from cradl_jax.runs.folder import read_thresholds
from cradl_jax.storage.files import write_arrays
from cradl_jax.storage.integrity import check, is_complete, write_checksums
from cradl_jax.storage.manifest import check_manifest, write_manifest
from cradl_jax.storage.reading import read_arrays
from experiments.cli.locking import exclusive_stage
from experiments.study import data_sets, protocol, runs, thresholds
from experiments.study.data_sets import HEALTHY
from experiments.study.scores import HeatmapFiles, of_scans, score, voxels
from experiments.study.settings import of_heatmaps

SPLITS = ("val", "test")
PROTOCOL = 1
"""Raised whenever the same scores come to be measured otherwise, or more of them."""
HEALTHY_TEST = "healthy_test.npz"
EVALUATED = ("scores of experiments.evaluate", "remove its folder and run experiments.evaluate")
AGAIN = "run python -m experiments.evaluate again"
LabelFree = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Thresholds by level, score and rate; those of "brain" are for voxels of the brain alone."""


class Measured(NamedTuple):
    """What is measured on a split of a data set.

    Attributes:
        metrics: by (level, score).
        labels: of the slices, [n] bool.
        scores: of the slices by name, [n] each.
        draws: AUPRC and AUROC of 2,000 bootstrap resamples of the scans, [draws] each, by
            "<level>-<score>-<metric>".
    """

    metrics: dict[tuple[str, str], dict[str, float]]
    labels: np.ndarray
    scores: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]


@exclusive_stage("evaluation of {}, seed {seed}")
def evaluate(config: ConfigDict, workdir: Path, method: str) -> None:
    """Measure all scores of one method and seed on all anomalous data sets; keep what is there."""
    folder = runs.folder(workdir, config.seed, method) / "evaluation"
    opened = data_sets.stores(config, workdir)
    made_from = runs.fingerprint(config, workdir, method, opened[HEALTHY])
    label_free = label_free_thresholds(config, workdir, method, opened[HEALTHY], made_from)
    processes.broadcast_from_first(
        lambda: write_manifest(folder, settings(config, opened, method), made_from)
    )
    if processes.broadcast_from_first(lambda: is_complete(folder)):
        check(folder, AGAIN)
        return
    scorers = runs.sources(config, workdir, method, opened[HEALTHY])
    healthy = healthy_test(config, folder, opened.pop(HEALTHY), scorers, label_free)
    parts = []
    for dataset, store in opened.items():
        for split in SPLITS:
            part = folder / f"{dataset}_{split}.csv"
            parts.append(part)
            if processes.broadcast_from_first(part.exists):
                continue
            measured = measure(config, part, store, split, scorers, label_free, healthy)
            if processes.is_first():
                write(part, measured, config.seed, method, dataset, split)
    processes.broadcast_from_first(lambda: gather(parts, folder))


def healthy_test(
    config: ConfigDict,
    folder: Path,
    healthy: SliceStore,
    scorers: Sequence[tuple[runs.Source, Any]],
    label_free: LabelFree,
) -> protocol.Arrays:
    """Return what healthy test scans hold, empty without any; keep what is there.

    All processes call this together; only the first one measures and reads.
    """
    if not healthy.rows("test").size:
        return {}
    part = folder / HEALTHY_TEST
    if not processes.broadcast_from_first(part.exists):
        arrays = protocol.measure_healthy(config, folder, healthy, scorers, label_free)
        if processes.is_first():
            write_arrays(part, arrays)
    return read_arrays(part, *EVALUATED) if processes.is_first() else {}


def gather(parts: Sequence[Path], folder: Path) -> None:
    """Write the results of all data sets and splits to one file, which finishes the folder."""
    rows = [row for part in parts for row in results.read_csv(part)]
    results.write_csv(folder / "results.csv", rows)
    write_checksums(folder)


def settings(config: ConfigDict, opened: Mapping[str, SliceStore], method: str) -> dict:
    """Return what the evaluation of a method depends on, as plain values."""
    data = {name: store.manifest["fingerprint"] for name, store in opened.items()}
    return {"method": method, "data": data, "protocol": PROTOCOL, **of_heatmaps(config, method)}


def read_results(
    config: ConfigDict, workdir: Path, method: str, opened: Mapping[str, SliceStore]
) -> list[results.Result]:
    """Read the results of one method and seed on the data sets whose stores are `opened`.

    Raises:
        InputError: it was not evaluated, with other models or data, or a file was changed.
    """
    folder = runs.folder(workdir, config.seed, method) / "evaluation"
    made_from = runs.fingerprint(config, workdir, method, opened[HEALTHY])
    check_manifest(folder, settings(config, opened, method), made_from)
    check(folder, AGAIN)
    return results.read_csv(folder / "results.csv")


def label_free_thresholds(
    config: ConfigDict, workdir: Path, method: str, healthy: SliceStore, made_from: str
) -> LabelFree:
    """Read the thresholds of a method on healthy scans.

    Raises:
        InputError: they are missing, damaged, or of other models or scans.
    """
    run = runs.folder(workdir, config.seed, method)
    kept = read_thresholds(run, made_from, healthy.manifest["fingerprint"])
    check_manifest(run / "thresholds", thresholds.settings(config, healthy, method))
    slices = {name: scores.thresholds for name, scores in kept.slices.items()}
    maps = {name: heatmap.pixels for name, heatmap in kept.heatmaps.items()}
    brains = {
        name: {rate: heatmap.masks[rate].threshold for rate in BRAIN_RATES}
        for name, heatmap in kept.heatmaps.items()
    }
    return {"slice": slices, "voxel": maps, "brain": brains}


def measure(
    config: ConfigDict,
    part: Path,
    store: SliceStore,
    split: str,
    scorers: Sequence[tuple[runs.Source, Any]],
    label_free: LabelFree,
    healthy: protocol.Arrays,
) -> Measured:
    """Measure each score and heatmap on a split; heatmaps lie beside `part` for as long.

    All processes call this together; the first one measures, the others return no metrics. The
    bootstrap resamples are the same for every score and method. Test scans are measured beyond the
    paper too, against what `healthy` ones hold.
    """
    rows = store.rows(split)
    labels = anomalous(store.masks)[rows]
    scans = np.unique(store.scans[rows], return_inverse=True)[1]
    weights = bootstrap.draw_weights(config.data.seed, scans.max() + 1)
    measured = Measured({}, labels, {}, {})

    def add(level: str, name: str, measures: Measures) -> None:
        values, draws = measures
        measured.metrics.setdefault((level, name), {}).update(values)
        measured.draws.update({f"{level}-{name}-{metric}": draws[metric] for metric in draws})

    scan_scores: dict[str, np.ndarray] = {}
    beyond = split == "test" and protocol.scans_of(store, rows, weights, config.data.seed, healthy)
    for scorer, params in scorers:
        with HeatmapFiles(part.parent) as heatmaps:
            scores = score(config, store, rows, scorer, params, heatmaps, part.stem)
            measured.scores.update(scores)
            scan_scores.update(of_scans(scorer, store, rows))
            for name, file in heatmaps.named.items():
                limits, chunks = label_free["voxel"][name], voxels(file, store, rows)
                add("voxel", name, measure_score(chunks, limits, scans, weights))
                if beyond:
                    limits = label_free["brain"][name]
                    for level, measures in protocol.of_heatmap(beyond, name, file, limits):
                        add(level, name, measures)
    for name, values in measured.scores.items() if processes.is_first() else ():
        chunks = metrics.in_memory(values, labels)
        add("slice", name, measure_score(chunks, label_free["slice"][name], scans, weights))
        if beyond:
            for level, measures in protocol.of_scores(
                beyond, name, values, labels, scan_scores.get(name)
            ):
                add(level, name, measures)
    return measured


def measure_score(
    chunks: metrics.Chunks, thresholds: Mapping[str, float], scans: np.ndarray, weights: np.ndarray
) -> Measures:
    """Return the metrics of one score, and bootstrap draws [draws] of AUPRC and AUROC.

    Args:
        chunks: of its values and labels, see `metrics.operating_points`.
        thresholds: at which it is measured too, by rate.
        scans: [n], the index of each slice's scan.
        weights: [draws, scans], see `bootstrap.draw_weights`.
    """
    points = metrics.operating_points(chunks, tuple(thresholds.values()))
    counts = bootstrap.count_by_scan(
        with_scans(chunks, scans), bootstrap.bin_edges(points), weights.shape[1]
    )
    values = metrics.metrics_at(points)
    for rate, threshold in thresholds.items():
        at_rate = metrics.metrics_above(points, threshold)
        values |= {f"{metric}@{rate}": value for metric, value in at_rate.items()}
    return values, bootstrap.weighted_metrics(counts, weights)


def write(part: Path, measured: Measured, seed: int, method: str, dataset: str, split: str) -> None:
    """Write what was measured on a split: `<part>_slices.npz`, `<part>_draws.npz`, then `part`."""
    slices = {"labels": measured.labels, **measured.scores}
    for name, arrays in (("slices", slices), ("draws", measured.draws)):
        write_arrays(part.with_name(f"{part.stem}_{name}.npz"), arrays)
    rows = [
        results.Result(seed, method, score, dataset, split, level, metric, value)
        for (level, score), values in measured.metrics.items()
        for metric, value in values.items()
    ]
    results.write_csv(part, rows)


def with_scans(chunks: metrics.Chunks, scans: np.ndarray) -> Iterator[tuple]:
    """Yield each chunk's scores and labels with the scan [n] of its rows."""
    first = 0
    for scores, labels in chunks():
        yield scores, labels, scans[first : first + len(scores)]
        first += len(scores)
