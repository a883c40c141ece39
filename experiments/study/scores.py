"""Scores and heatmaps of a store's slices; heatmaps go to files, since memory may not hold them."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cradl_jax import scoring
from cradl_jax.data.slices.store import SliceStore
from cradl_jax.devices import processes
from cradl_jax.evaluation.masks import BrainMap
from cradl_jax.storage.files import naming, require_space
from experiments.study import runs
from experiments.study.stored_maps import MAP, StoredMaps

BLOCK = 512  # slices read at once for the voxel metrics


class HeatmapFiles(ExitStack):
    """A nameless file for each heatmap, gone when the block or the process ends, however it does.

    Attributes:
        folder: on whose disk they lie.
        named: by the heatmap's name.
    """

    def __init__(self, folder: Path):
        """Start without files."""
        super().__init__()
        self.folder = folder
        self.named: dict[str, IO[bytes]] = {}

    def add(self, heatmaps: dict[str, np.ndarray], total: int) -> None:
        """Append heatmaps [n, H, W] of slices, of which there will be `total`."""
        if not self.named:
            needed = total * sum(values[0].nbytes for values in heatmaps.values())
            require_space(self.folder, needed, f"the heatmaps of {total} slices")
            for name in heatmaps:
                file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115, the stack closes it
                self.named[name] = self.enter_context(file)
        for name, values in heatmaps.items():
            with naming(self.folder / name):
                self.named[name].write(values.tobytes())


def score(
    config: ConfigDict,
    store: SliceStore,
    rows: np.ndarray,
    scorer: runs.Source,
    params: Any,
    files: HeatmapFiles,
    label: str,
) -> dict[str, np.ndarray]:
    """Score slices: return scores [n]; write post-processed heatmaps [n, H, W] to `files`.

    All processes call this together, and only in the first one are there files.

    Raises:
        InputError: the disk has no room for the heatmaps.
    """
    processes.all_gather(None)  # they meet here, where a wait may be long, and not on the devices
    if isinstance(scorer, StoredMaps):
        for first in range(0, len(rows), BLOCK):
            files.add({MAP: scorer.heatmaps_of(store, rows[first : first + BLOCK])}, len(rows))
        return {scorer.score_name: scorer.scores_of(store, rows)}
    arrays = scoring.Batch(store.images, store.brains, store.position)
    scorer = scoring.post_processed(scorer)
    batches = runs.in_batches(config, scorer, params, arrays, rows, f"score {label}")
    scores = {}
    for scan in by_scan(batches, store.scans[rows]):
        scan = scoring.over_scan(scan, config.score.neighbours)
        for name, values in scan.scores.items():
            scores.setdefault(name, []).append(values)
        if processes.is_first():
            files.add(scan.heatmaps, len(rows))
        store.release()
    return {name: np.concatenate(values) for name, values in scores.items()}


def of_scans(scorer: runs.Source, store: SliceStore, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return scores [S] of the scans of the rows themselves, by the name of the slice score.

    Only a foreign method may have them.
    """
    if isinstance(scorer, StoredMaps) and scorer.scan_scores:
        return {scorer.score_name: scorer.scan_scores_of(store, rows)}
    return {}


def by_scan(batches: Iterable[Any], scans: np.ndarray) -> Iterator[Any]:
    """Yield the rows of each scan, in trees of arrays as `batches`; `scans` [n] names each row's.

    The rows of a scan follow on each other.
    """
    lengths = [len(list(group)) for _, group in groupby(scans)]
    waiting = []
    for batch in batches:
        rows = jax.tree.map(lambda *parts: np.concatenate(parts), *waiting, batch)
        while lengths and len(jax.tree.leaves(rows)[0]) >= lengths[0]:
            length = lengths.pop(0)
            yield jax.tree.map(itemgetter(slice(length)), rows)
            rows = jax.tree.map(itemgetter(slice(length, None)), rows)
        waiting = [rows]


def voxels(file: IO[bytes], store: SliceStore, rows: np.ndarray) -> Callable[[], Iterator]:
    """Return a function that yields heatmaps [n, H, W] with their labels, block by block."""

    def blocks():
        for first in range(0, len(rows), BLOCK):
            labels = store.masks[rows[first : first + BLOCK]]
            store.release()
            file.seek(first * labels[0].size * np.dtype(np.float32).itemsize)
            yield np.fromfile(file, np.float32, labels.size).reshape(labels.shape), labels

    return blocks


ScanMaps = Callable[[], Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]]


def scan_maps(file: IO[bytes], store: SliceStore, rows: np.ndarray) -> ScanMaps:
    """Return a function that yields heatmap, brain and annotation of each scan, see `scans`."""

    def heatmaps():
        file.seek(0)
        for mine, brain, mask in scans(store, rows):
            values = np.fromfile(file, np.float32, len(mine) * store.images[0].size)
            yield stacked(values.reshape(-1, *brain.shape[1:]), store.z[mine]), brain, mask

    return heatmaps


def scans(
    store: SliceStore, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield each scan's rows, and its brain and annotation as stacks [D, H, W], see `stacked`."""
    for mine in np.split(rows, np.flatnonzero(np.diff(store.scans[rows])) + 1):
        brain, mask = (stacked(of[mine], store.z[mine]) for of in (store.brains, store.masks))
        store.release()
        yield mine, brain, mask


def stacked(slices: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Put a scan's slices [n, H, W] at their places z [n] in a stack, 0 where there is none."""
    stack = np.zeros((z[-1] - z[0] + 1, *slices.shape[1:]), slices.dtype)
    stack[z - z[0]] = slices
    return stack


def brain_voxels(store: SliceStore, rows: np.ndarray) -> list[int]:
    """Count the voxels of the brain of each scan of the rows."""
    return [int(np.count_nonzero(brain)) for _, brain, _ in scans(store, rows)]


def voxel_ml(store: SliceStore, rows: np.ndarray) -> np.ndarray:
    """Return the volume of a pixel of a slice in each scan of the rows, [S], in ml."""
    records = [store.records[scan] for scan in np.unique(store.scans[rows])]
    return np.array([one["pixel_mm"] ** 2 * one["slice_mm"] / 1000 for one in records])


def brain_maps(
    file: IO[bytes], store: SliceStore, rows: np.ndarray
) -> Callable[[], Iterator[BrainMap]]:
    """Return a function that yields the heatmap of each scan on its stack, 0 outside the brain."""
    volumes = voxel_ml(store, rows)

    def maps() -> Iterator[BrainMap]:
        of_scans = scan_maps(file, store, rows)()
        for (heat, brain, _), volume in zip(of_scans, volumes, strict=True):
            yield BrainMap(np.where(brain, heat, 0), brain, float(volume))

    return maps
