"""Score every slice of the anomalous data sets and measure how well the scores tell them apart.

    python -m experiments.evaluate --config=configs/phantom.py [--workdir=runs/phantom]

Needs the trained encoders of the config's methods and their densities. Writes
WORKDIR/seed<seed>/<method>/evaluation: results.csv (slice-wise and voxel-wise metrics), and for
each data set and split the slices' scores and bootstrap draws of the metrics.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cradl_jax import intervals, metrics, report, scoring
from cradl_jax.checkpoints import write_manifest
from cradl_jax.data.slices import SliceStore, anomalous
from experiments import app, runs
from experiments.preprocess import stores

SPLITS = ("val", "test")
BLOCK = 512  # slices read at once for the voxel metrics


def evaluate(config: ConfigDict, workdir: Path, method: str) -> None:
    """All scores of one method and seed on all anomalous data sets; what is there is kept."""
    folder = runs.folder(workdir, config.seed, method) / "evaluation"
    scorers, identity = runs.scorers(config, workdir, method)
    _, *anomalous_sets = stores(config, workdir).items()
    fingerprints = {name: store.manifest["fingerprint"] for name, store in anomalous_sets}
    write_manifest(folder, {"method": method, "data": fingerprints}, identity)
    parts = []
    for dataset, store in anomalous_sets:
        for split in SPLITS:
            part = folder / f"{dataset}_{split}.csv"
            if not part.exists():
                rows = [
                    report.Result(config.seed, method, score, dataset, split, level, metric, value)
                    for level, score, values in measure(config, part, store, split, scorers)
                    for metric, value in values.items()
                ]
                report.write_csv(part, rows)
            parts += report.read_csv(part)
    report.write_csv(folder / "results.csv", parts)


def measure(
    config: ConfigDict,
    part: Path,
    store: SliceStore,
    split: str,
    scorers: list[tuple[scoring.Scorer, Any]],
) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Level, name and metrics of each score and heatmap on a split.

    Beside `part` it keeps `<part>_slices.npz`: labels and scores of the slices; and
    `<part>_draws.npz`: AUPRC and AUROC of 2,000 bootstrap resamples of the scans, the same ones
    for every score and method.
    """
    rows = store.rows(split)
    labels = anomalous(store.masks)[rows]
    scans = np.unique(store.scans[rows], return_inverse=True)[1]
    weights = intervals.draw_weights(config.data.seed, scans.max() + 1)
    scores, draws = {}, {}

    def measured(level: str, name: str, chunks: metrics.Chunks):
        points = metrics.operating_points(chunks)
        edges = intervals.bin_edges(points)
        counts = intervals.count_by_scan(with_scans(chunks, scans), edges, weights.shape[1])
        for metric, values in intervals.weighted_metrics(counts, weights).items():
            draws[f"{level}-{name}-{metric}"] = values
        return level, name, metrics.metrics_at(points)

    for scorer, params in scorers:
        with tempfile.TemporaryDirectory(dir=part.parent) as temporary:
            found, heatmaps = score(config, store, rows, scorer, params, Path(temporary), part.stem)
            scores |= found
            for name, path in heatmaps.items():
                yield measured("voxel", name, voxels(path, store, rows))
    for name, values in scores.items():
        yield measured("slice", name, metrics.in_memory(values, labels))
    np.savez(part.with_name(f"{part.stem}_slices.npz"), labels=labels, **scores)
    np.savez(part.with_name(f"{part.stem}_draws.npz"), **draws)


def with_scans(chunks: metrics.Chunks, scans: np.ndarray) -> Iterator[tuple]:
    """Each chunk's scores and labels with the scan [n] of its rows."""
    first = 0
    for scores, labels in chunks():
        yield scores, labels, scans[first : first + len(scores)]
        first += len(scores)


def score(
    config: ConfigDict,
    store: SliceStore,
    rows: np.ndarray,
    scorer: scoring.Scorer,
    params: Any,
    folder: Path,
    label: str,
) -> tuple[dict[str, np.ndarray], dict[str, Path]]:
    """Scores [n] of the given slices, and files of their post-processed heatmaps [n, H, W]."""
    arrays = scoring.Batch(store.images, store.brains, store.position)
    scorer = scoring.post_processed(scorer)
    scores, heatmaps = {}, {}
    for batch in runs.in_batches(config, scorer, params, arrays, rows, f"score {label}"):
        for name, values in batch.scores.items():
            scores.setdefault(name, []).append(values)
        for name, values in batch.heatmaps.items():
            heatmaps[name] = folder / name
            with heatmaps[name].open("ab") as file:
                values.tofile(file)
        store.release()
    return {name: np.concatenate(values) for name, values in scores.items()}, heatmaps


def voxels(path: Path, store: SliceStore, rows: np.ndarray) -> Callable[[], Iterator]:
    """The heatmaps' values [n, H, W] with their labels, block by block, as often as asked."""

    def blocks():
        with path.open("rb") as file:
            for first in range(0, len(rows), BLOCK):
                labels = store.masks[rows[first : first + BLOCK]]
                store.release()
                yield np.fromfile(file, np.float32, labels.size).reshape(labels.shape), labels

    return blocks


def main(config: ConfigDict, workdir: Path) -> None:
    """Entry point: the configured methods and the trivial baselines."""
    for method in (*config.methods, report.BASELINE):
        evaluate(config, workdir, method)


if __name__ == "__main__":
    app.run(main)
