"""The heatmaps and slice scores of a foreign method, as they are stored in its run folder.

`heatmaps/<data set>.npy`, [M, H, W] float32, finished (post-processed, or not, as was asked for),
and `heatmaps/scores.npz`, [M] by data set, of the M slices of `evaluated_rows`. They take the place
of a scorer's results. If they were given, `heatmaps/scan_scores.npz` has the scores of the scans of
these slices, by data set, in the order of their numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cradl_jax.data.slices.store import SliceStore
from cradl_jax.errors import InputError
from cradl_jax.storage.integrity import SUMS, check
from cradl_jax.storage.manifest import read_manifest
from cradl_jax.storage.reading import read_arrays

FOLDER = "heatmaps"  # in the folder of a run
MAP, MAXIMUM, GIVEN = "map", "maximum", "given"
"""Names of the heatmap, and of the slice score: the maximum of the heatmap, or from a table."""
SCORES, SCAN_SCORES = "scores.npz", "scan_scores.npz"


@dataclass(frozen=True)
class StoredMaps:
    """What a foreign method says of the evaluated slices of all data sets; see `read`."""

    folder: Path
    score_name: str
    scores: dict[str, np.ndarray]
    """[M] by data set."""
    scan_scores: dict[str, np.ndarray]
    """By data set, of its scans; empty if none were given."""

    def scores_of(self, store: SliceStore, rows: np.ndarray) -> np.ndarray:
        """Return the scores [n] of the slices in `rows` [n] of a store."""
        return self.scores[store.path.name][_places(store, rows)]

    def scan_scores_of(self, store: SliceStore, rows: np.ndarray) -> np.ndarray:
        """Return the given scores [S] of the scans of `rows` [n], in the order of their numbers."""
        evaluated, wanted = (np.unique(store.scans[of]) for of in (evaluated_rows(store), rows))
        return self.scan_scores[store.path.name][np.searchsorted(evaluated, wanted)]

    def heatmaps_of(self, store: SliceStore, rows: np.ndarray) -> np.ndarray:
        """Return the heatmaps [n, H, W] of the slices in `rows` [n] of a store."""
        path = self.folder / f"{store.path.name}.npy"
        return np.load(path, mmap_mode="r", allow_pickle=False)[_places(store, rows)]


def evaluated_rows(store: SliceStore) -> np.ndarray:
    """Return [M] the rows of a store that are evaluated, or that thresholds are found on."""
    return np.flatnonzero(~np.isin(store.splits, ("", "train")))


def _places(store: SliceStore, rows: np.ndarray) -> np.ndarray:
    """Return [n] where `rows` [n] are among the evaluated ones."""
    return np.searchsorted(evaluated_rows(store), rows)


def read_fingerprint(run: Path, healthy: SliceStore) -> str:
    """Return the fingerprint of what a foreign method's results rest on, its maps.

    Raises:
        InputError: there are none, not all, or they are of other slices.
    """
    manifest = read_manifest(run / FOLDER)
    found, expected = manifest["settings"]["data"]["healthy"], healthy.manifest["fingerprint"]
    if found != expected or "fingerprint" not in manifest:
        raise InputError(
            f"{run / FOLDER}: expected maps on the slices of this study ({expected}), found some "
            f"of them, or on others ({found}); remove {run} and run python -m "
            "experiments.evaluate_maps again"
        )
    return manifest["fingerprint"]


def read(run: Path) -> StoredMaps:
    """Read what is stored in the run folder of a foreign method.

    Raises:
        InputError: it is missing, incomplete or damaged.
    """
    folder = run / FOLDER
    check(folder, "run python -m experiments.evaluate_maps again")
    remedy = f"remove {run} and run python -m experiments.evaluate_maps again"
    scores = read_arrays(folder / SCORES, "the slice scores of a foreign method", remedy)
    scan_scores, place = {}, folder / SCAN_SCORES
    if place.exists():
        scan_scores = read_arrays(place, "the scan scores of a foreign method", remedy)
    return StoredMaps(folder, read_manifest(folder)["settings"]["score"], scores, scan_scores)


def methods(workdir: Path, seeds: Iterable[int]) -> dict[str, list[int]]:
    """Find the foreign methods of a study, each with those of `seeds` that it has."""
    found: dict[str, list[int]] = {}
    for seed in seeds:
        for sums in workdir.glob(f"seed{seed}/*/{FOLDER}/{SUMS}"):
            found.setdefault(sums.parents[1].name, []).append(seed)
    return dict(sorted(found.items()))


def in_words(run: Path) -> str:
    """Say how a foreign method's maps and scores were used, and their fingerprint."""
    manifest = read_manifest(run / FOLDER)
    about = manifest["settings"]
    used = "post-processed as ours" if about["postprocess"] else "taken as they are"
    scores = "maximum of the map" if about["score"] == MAXIMUM else "given"
    scans = "; scan scores: given" if "scan_scores" in about else ""
    return f"{used}; slice scores: {scores}{scans}; fingerprint {manifest['made_from']}"
