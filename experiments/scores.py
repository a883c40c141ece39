"""Scores and heatmaps of a store's slices; heatmaps go to files, since memory may not hold them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cradl_jax import processes, scoring
from cradl_jax.data.slices import SliceStore
from experiments import runs

BLOCK = 512  # slices read at once for the voxel metrics


def score(
    config: ConfigDict,
    store: SliceStore,
    rows: np.ndarray,
    scorer: scoring.Scorer,
    params: Any,
    folder: Path,
    label: str,
) -> tuple[dict[str, np.ndarray], dict[str, Path]]:
    """Scores [n] of the given slices, and files of their post-processed heatmaps [n, H, W].

    All processes call this together, and only the first one writes the files.
    """
    processes.gathered(None)  # they meet here, where a wait may be long, and not on the devices
    first = processes.is_first()
    arrays = scoring.Batch(store.images, store.brains, store.position)
    scorer = scoring.post_processed(scorer)
    scores, heatmaps = {}, {}
    for batch in runs.in_batches(config, scorer, params, arrays, rows, f"score {label}"):
        for name, values in batch.scores.items():
            scores.setdefault(name, []).append(values)
        for name, values in batch.heatmaps.items():
            heatmaps[name] = folder / name
            if first:
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
