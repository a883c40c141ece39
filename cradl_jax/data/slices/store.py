"""The slice store: all slices of a data set on disk, as memory-mapped arrays.

A folder with `images.npy` float32, `brains.npy` and `masks.npy` bool, each [N, H, W]; `index.csv`
with the row of each slice in them; `scans.json` with files, affine, geometry and intensity moments
of each scan; `descriptions.json`, what each training scan looks like, see `scan_statistics`, in a
file of its own since few need it; `manifest.json` with the fingerprint of what it was made from;
`SHA256SUMS`, see `integrity`.
"""

import csv
import json
import mmap
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cradl_jax.data.scans.fingerprint import fingerprint
from cradl_jax.data.scans.layouts import Scan
from cradl_jax.errors import InputError, cause
from cradl_jax.storage.integrity import SUMS, check
from cradl_jax.storage.reading import DAMAGED_ARRAYS

FORMAT = 6
"""Of stores, finished or not; this version cannot read those of another number."""
ARRAYS = {"images": np.float32, "brains": np.bool_, "masks": np.bool_}
DAMAGED = (*DAMAGED_ARRAYS, AttributeError, csv.Error)
TABLES = ("index.csv", "scans.json", "manifest.json")
WORK = "work"  # of a store that is being built, see `building`
DESCRIPTIONS = "descriptions.json"
FILES = {*(f"{name}.npy" for name in ARRAYS), *TABLES, DESCRIPTIONS, SUMS, WORK}


@dataclass(frozen=True)
class SliceStore:
    """The slices of a data set; slices of one scan lie together, from the lowest to the highest.

    Some of the N rows may be empty: they belong to no split and to no scan. Take those of `rows`.
    """

    path: Path
    images: np.memmap
    """[N, H, W] float32 in [-1.5, 1.5], exactly 0 outside the brain, memory-mapped."""
    brains: np.ndarray
    """[N, H, W] bool, memory-mapped."""
    masks: np.ndarray
    """[N, H, W] bool, the annotated anomalies, memory-mapped."""
    scans: np.ndarray
    """[N] int, number of the slice's scan in `records`, -1 of an empty row."""
    subjects: np.ndarray
    """[N] str."""
    splits: np.ndarray
    """[N] str, "" of an empty row."""
    z: np.ndarray
    """[N] int, number of the slice in its stack, from the lowest."""
    position: np.ndarray
    """[N] float32 in [0, 1], height of the slice within its brain."""
    records: list[dict]
    """For each scan: subject, split, image and mask (relative to `path`), their fingerprints, mean
    and standard deviation of its brain, affine in RAS orientation, how it was prepared (see
    `scans.preparation`, None if that is not known), and the fields of `SliceGeometry`."""
    manifest: dict

    def rows(self, split: str) -> np.ndarray:
        """Return [M] int: the slices of a split."""
        return np.flatnonzero(self.splits == split)

    def release(self) -> None:
        """Give back the memory of what was read so far; it is read again when it is needed."""
        for name in ARRAYS:
            pages = getattr(self, name)._mmap
            if hasattr(pages, "madvise"):  # not on Windows
                pages.madvise(mmap.MADV_DONTNEED)


def anomalous(masks: np.ndarray, block: int = 1024) -> np.ndarray:
    """Return [N] bool: slices with more than five anomalous voxels (paper, Section 4.6).

    `masks` [N, H, W] bool is read `block` slices at a time.
    """
    starts = range(0, len(masks), block)
    counts = [np.count_nonzero(masks[start : start + block], axis=(1, 2)) for start in starts]
    return np.concatenate([np.zeros(0, int), *counts]) > 5


def find_store(path: Path, scans: Sequence[Scan], **settings: Any) -> SliceStore | None:
    """Open the store at `path` if it is complete and was made from these scans and settings.

    The settings are of `normalized_slices`. What a process that was killed while it completed the
    store left in it is removed.
    """
    try:
        store = open_store(path)
    except InputError:
        return None
    if store.manifest["fingerprint"] != fingerprint(scans, settings):
        return None
    shutil.rmtree(path / WORK, ignore_errors=True)
    return store


def open_store(path: Path) -> SliceStore:
    """Open a slice store for reading; the arrays' sizes are checked, not their contents.

    Raises:
        InputError: If there is none, or one that is incomplete or damaged.
    """
    try:
        check(path, "build the store again", TABLES)
        manifest = json.loads((path / "manifest.json").read_text())
        if manifest.get("format") == FORMAT:
            return _opened(path, manifest)
    except DAMAGED as fault:
        raise InputError(
            f"{path}: expected a complete slice store, found none or a damaged one "
            f"({cause(fault)}); build it again"
        ) from fault
    raise InputError(
        f"{path}: expected a slice store of format {FORMAT}, found "
        f"{manifest.get('format', 'an earlier one')}; build it again with the same command"
    )


def _opened(path: Path, manifest: dict[str, Any]) -> SliceStore:
    """Open the arrays and tables of a store.

    Raises:
        ValueError: they do not belong together.
    """
    arrays = {
        name: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS
    }
    with (path / "index.csv").open(newline="", encoding="utf-8") as file:
        index = list(csv.DictReader(file))
    rows = np.array([line["row"] for line in index], dtype=int)

    def column(name: str, dtype: type, empty: Any) -> np.ndarray:
        values = np.array([line[name] for line in index], dtype=dtype)
        filled = np.full(manifest["rows"], empty, dtype=values.dtype)
        filled[rows] = values
        return filled

    store = SliceStore(
        path=path,
        **arrays,
        scans=column("scan", int, -1),
        subjects=column("subject", str, ""),
        splits=column("split", str, ""),
        z=column("z", int, -1),
        position=column("position", np.float32, 0),
        records=json.loads((path / "scans.json").read_text()),
        manifest=manifest,
    )
    shape = (manifest["rows"], manifest["settings"]["size"], manifest["settings"]["size"])
    if manifest["slices"] != len(set(rows)) or any(a.shape != shape for a in arrays.values()):
        raise ValueError(f"{len(index)} slices in index.csv, another number elsewhere")
    if any(arrays[name].dtype != dtype for name, dtype in ARRAYS.items()):
        raise ValueError("arrays of another type")
    if not np.isin(store.scans[rows], np.arange(len(store.records))).all():
        raise ValueError("slices of scans that scans.json lacks")
    return store
