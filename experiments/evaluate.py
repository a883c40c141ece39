"""Score every slice of the anomalous data sets and measure how well the scores tell them apart.

    python -m experiments.evaluate --config=configs/phantom.py [--workdir=runs/phantom]

Needs a trained encoder and its densities. Writes WORKDIR/seed<seed>/<method>/evaluation:
results.csv (slice-wise and voxel-wise metrics) and the slices' scores.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from cradl_jax import metrics, report, scoring
from cradl_jax.checkpoints import write_manifest
from cradl_jax.data.slices import SliceStore, anomalous
from experiments import app, runs
from experiments.preprocess import stores

SPLITS = ("val", "test")
BLOCK = 512  # slices read at once for the voxel metrics


def evaluate(config: ConfigDict, workdir: Path, method: str) -> None:
    """All scores of one method and seed on all anomalous data sets."""
    folder = runs.folder(workdir, config.seed, method) / "evaluation"
    scorers, identity = runs.scorers(config, workdir, method)
    scorers = [(scoring.post_processed(scorer), params) for _, scorer, params in scorers]
    _, *anomalous_sets = stores(config, workdir).items()
    fingerprints = {name: store.manifest["fingerprint"] for name, store in anomalous_sets}
    write_manifest(folder, {"method": method, "data": fingerprints}, identity)
    if (folder / "results.csv").exists():
        return
    rows = []
    for dataset, store in anomalous_sets:
        for split in SPLITS:
            for level, name, values in measure(config, folder, store, dataset, split, scorers):
                rows += [
                    report.Result(config.seed, method, name, dataset, split, level, metric, value)
                    for metric, value in values.items()
                ]
    report.write_csv(folder / "results.csv", rows)


def measure(
    config: ConfigDict, folder: Path, store: SliceStore, dataset: str, split: str, scorers: list
) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Level, score and metrics of each score and heatmap on a split; keeps the slices' scores."""
    rows = store.rows(split)
    labels = anomalous(store.masks[rows])
    collected = {}
    for scorer, params in scorers:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            scores, heatmaps = score(config, store, rows, scorer, params, Path(temporary), dataset)
            collected |= scores
            for name, heatmap in heatmaps.items():
                points = metrics.operating_points(voxels(heatmap, store.masks, rows))
                yield "voxel", name, metrics.metrics_at(points)
    for name, values in collected.items():
        yield "slice", name, metrics.binary_metrics(values, labels)
    np.savez(folder / f"{dataset}_{split}.npz", labels=labels, **collected)


def score(
    config: ConfigDict,
    store: SliceStore,
    rows: np.ndarray,
    scorer: scoring.Scorer,
    params,
    folder: Path,
    label: str,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Scores [n] and post-processed heatmaps [n, H, W] of the given slices, the latter on disk."""
    arrays = scoring.Batch(store.images, store.brains, store.position)
    scores, heatmaps, done = {}, {}, 0
    for batch in runs.in_batches(config, scorer, params, arrays, rows, f"score {label}"):
        for name, values in batch.scores.items():
            scores.setdefault(name, []).append(values)
        for name, values in batch.heatmaps.items():
            if name not in heatmaps:
                heatmaps[name] = np.lib.format.open_memmap(
                    folder / f"{name}.npy", "w+", np.float32, (len(rows), *values.shape[1:])
                )
            heatmaps[name][done : done + len(values)] = values
        done += len(values)
    return {name: np.concatenate(values) for name, values in scores.items()}, heatmaps


def voxels(heatmap: np.ndarray, masks: np.ndarray, rows: np.ndarray) -> Callable[[], Iterator]:
    """The heatmap's values with their labels, block by block, as often as asked."""

    def blocks():
        for first in range(0, len(rows), BLOCK):
            chosen = slice(first, first + BLOCK)
            yield heatmap[chosen], masks[rows[chosen]]

    return blocks


def main(config: ConfigDict, workdir: Path) -> None:
    """Entry point: the configured methods and the trivial baselines."""
    for method in (*config.methods, report.BASELINE):
        evaluate(config, workdir, method)


if __name__ == "__main__":
    app.run(main)
