"""The slice store: all slices of a data set on disk, as memory-mapped arrays.

A folder with `images.npy` float32, `brains.npy` and `masks.npy` bool, each [N, H, W]; `index.csv`
with a row a slice; `scans.json` with files, affine, geometry and intensity moments of each scan;
`manifest.json` with the fingerprint of what it was made from.
"""

import csv
import json
import mmap
import os
import platform
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.lib.format import open_memmap

import cradl_jax
from cradl_jax.data.fingerprint import fingerprint
from cradl_jax.data.layouts import Scan
from cradl_jax.data.preprocess import (
    SliceGeometry,
    Slices,
    normalized_slices,
    slice_geometry,
)
from cradl_jax.data.volumes import read_grid, read_mask, read_volume
from cradl_jax.data.workers import map_scans
from cradl_jax.errors import InputError, cause
from cradl_jax.reading import DAMAGED_ARRAYS

ARRAYS = {"images": np.float32, "brains": np.bool_, "masks": np.bool_}
DAMAGED = (*DAMAGED_ARRAYS, AttributeError, csv.Error)
FILES = {*(f"{name}.npy" for name in ARRAYS), "index.csv", "scans.json", "manifest.json"}


@dataclass(frozen=True)
class SliceStore:
    """The slices of a data set; slices of one scan lie together, from the lowest to the highest."""

    path: Path
    images: np.ndarray
    """[N, H, W] float32 in [-1.5, 1.5], exactly 0 outside the brain, memory-mapped."""
    brains: np.ndarray
    """[N, H, W] bool, memory-mapped."""
    masks: np.ndarray
    """[N, H, W] bool, the annotated anomalies, memory-mapped."""
    scans: np.ndarray
    """[N] int, number of the slice's scan in `records`."""
    subjects: np.ndarray
    """[N] str."""
    splits: np.ndarray
    """[N] str."""
    z: np.ndarray
    """[N] int, number of the slice in its volume, from the lowest."""
    position: np.ndarray
    """[N] float32 in [0, 1], height of the slice within its brain."""
    records: list[dict]
    """For each scan: subject, split, image and mask (relative to `path`), mean and standard
    deviation of its brain, affine in RAS orientation, and the fields of `SliceGeometry`."""
    manifest: dict

    def rows(self, split: str) -> np.ndarray:
        """[M] int: the slices of a split."""
        return np.flatnonzero(self.splits == split)

    def pixel_mm(self, split: str) -> float:
        """Side of a pixel in millimeters, the median over the scans of a split."""
        return float(np.median([r["pixel_mm"] for r in self.records if r["split"] == split]))

    def release(self) -> None:
        """Give back the memory of what was read so far; it is read again when it is needed."""
        for name in ARRAYS:
            pages = getattr(self, name)._mmap
            if hasattr(pages, "madvise"):  # not on Windows
                pages.madvise(mmap.MADV_DONTNEED)


def anomalous(masks: np.ndarray, block: int = 1024) -> np.ndarray:
    """[N] bool: slices with more than five anomalous voxels (paper, Section 4.6).

    `masks` [N, H, W] bool is read `block` slices at a time.
    """
    starts = range(0, len(masks), block)
    counts = [np.count_nonzero(masks[start : start + block], axis=(1, 2)) for start in starts]
    return np.concatenate([np.zeros(0, int), *counts]) > 5


def build_store(
    path: Path,
    scans: Sequence[Scan],
    *,
    size: int,
    offset: int,
    slice_spacing_mm: float | None = None,
    workers: int,
) -> SliceStore:
    """The slice store at `path`, made from the scans unless it is there already.

    It is written to `<path>.partial` and renamed when it is complete.

    Args:
        path: Folder of the store.
        scans: The data set.
        size: See `slice_geometry`, as for the next two.
        offset: Number of slices left out at each end of a volume.
        slice_spacing_mm: Distance of neighboring slices; None keeps that of the volume.
        workers: Number of scans sliced at once.

    Raises:
        InputError: If a scan cannot be used, the disk is too small, or `path` is another folder.
    """
    settings = {"size": size, "offset": offset, "slice_spacing_mm": slice_spacing_mm}
    store = find_store(path, scans, **settings)
    if store is not None:
        return store
    if path.exists() and not (path.is_dir() and {f.name for f in path.iterdir()} <= FILES):
        raise InputError(
            f"{path}: expected a slice store or nothing, found other files; choose another folder"
        )
    geometries = [_geometry(scan, settings) for scan in scans]
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _check_space(path, sum(g.n_slices for g in geometries), size)
        _write_store(partial, path, scans, geometries, settings, workers)
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return open_store(path)


def find_store(
    path: Path,
    scans: Sequence[Scan],
    *,
    size: int,
    offset: int,
    slice_spacing_mm: float | None = None,
) -> SliceStore | None:
    """The slice store at `path` if it is complete and was made from these scans and settings."""
    try:
        store = open_store(path)
    except InputError:
        return None
    settings = {"size": size, "offset": offset, "slice_spacing_mm": slice_spacing_mm}
    return store if store.manifest["fingerprint"] == fingerprint(scans, settings) else None


def open_store(path: Path) -> SliceStore:
    """Open a slice store for reading.

    Raises:
        InputError: If there is none, or one that is incomplete or damaged.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        arrays = {
            name: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ARRAYS
        }
        with (path / "index.csv").open(newline="") as file:
            index = list(csv.DictReader(file))
        store = SliceStore(
            path=path,
            **arrays,
            scans=np.array([row["scan"] for row in index], dtype=int),
            subjects=np.array([row["subject"] for row in index], dtype=str),
            splits=np.array([row["split"] for row in index], dtype=str),
            z=np.array([row["z"] for row in index], dtype=int),
            position=np.array([row["position"] for row in index], dtype=np.float32),
            records=json.loads((path / "scans.json").read_text()),
            manifest=manifest,
        )
        shape = (len(index), manifest["settings"]["size"], manifest["settings"]["size"])
        if manifest["slices"] != len(index) or any(a.shape != shape for a in arrays.values()):
            raise ValueError(f"{len(index)} slices in index.csv, another number elsewhere")
        if any(arrays[name].dtype != dtype for name, dtype in ARRAYS.items()):
            raise ValueError("arrays of another type")
        if not np.isin(store.scans, np.arange(len(store.records))).all():
            raise ValueError("slices of scans that scans.json lacks")
    except DAMAGED as fault:
        raise InputError(
            f"{path}: expected a complete slice store, found none or a damaged one "
            f"({cause(fault)}); build it again"
        ) from fault
    return store


def _geometry(scan: Scan, settings: dict) -> SliceGeometry:
    try:
        return slice_geometry(*read_grid(scan.image), **settings)
    except InputError as fault:
        raise InputError(f"{scan.image}: {fault}") from fault


def _check_space(path: Path, n_slices: int, size: int) -> None:
    """Raise an `InputError` unless the disk has room for the arrays."""
    needed = n_slices * size**2 * sum(np.dtype(dtype).itemsize for dtype in ARRAYS.values())
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise InputError(
            f"{path}: expected {needed / 1e9:.1f} GB of free disk space for {n_slices} slices, "
            f"found {free / 1e9:.1f} GB; free some or choose another working directory"
        )


def _write_store(
    folder: Path,
    path: Path,
    scans: Sequence[Scan],
    geometries: Sequence[SliceGeometry],
    settings: dict,
    workers: int,
) -> None:
    """Fill `folder` with the store that will be moved to `path`, the manifest last."""
    stops = np.cumsum([geometry.n_slices for geometry in geometries])
    shape = (int(stops[-1]), settings["size"], settings["size"])
    arrays = {
        name: open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
        for name, dtype in ARRAYS.items()
    }

    def write_scan(number: int) -> tuple[dict, list[tuple]]:
        scan, geometry = scans[number], geometries[number]
        slices, facts = _slice_scan(scan, settings)
        for name, array in arrays.items():
            array[stops[number] - geometry.n_slices : stops[number]] = getattr(slices, name)
        files = {"image": _relative(scan.image, path), "mask": _relative(scan.mask, path)}
        record = {"subject": scan.subject, "split": scan.split, **files, **facts}
        index = zip(slices.z_index, slices.position, strict=True)
        return record | asdict(geometry), [(number, scan.subject, scan.split, *i) for i in index]

    written = map_scans(write_scan, range(len(scans)), workers, f"slicing {path.name}")
    records, rows = zip(*written, strict=True)
    for array in arrays.values():
        array.flush()
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scan", "subject", "split", "z", "position"])
        writer.writerows(row for of_scan in rows for row in of_scan)
    (folder / "scans.json").write_text(json.dumps(records, indent=1))
    manifest = _manifest(scans, settings, shape[0])
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _slice_scan(scan: Scan, settings: dict) -> tuple[Slices, dict]:
    """The slices of one scan, and its affine and the moments of its intensity."""
    volume = read_volume(scan.image)
    mask = None if scan.mask is None else read_mask(scan.mask, volume)
    slices, mean, std = normalized_slices(volume.data, mask, volume.spacing_mm, **settings)
    return slices, {"mean": mean, "std": std, "affine": volume.affine.tolist()}


def _manifest(scans: Sequence[Scan], settings: dict, n_slices: int) -> dict:
    return {
        "fingerprint": fingerprint(scans, settings),
        "settings": settings,
        "scans": dict(Counter(str(scan.split) for scan in scans)),
        "slices": n_slices,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "nibabel": nibabel.__version__,
            "cradl_jax": cradl_jax.__version__,
        },
    }


def _relative(file: Path | None, store: Path) -> str | None:
    """Path of a scan's file seen from the store, so that both can be moved together."""
    return None if file is None else os.path.relpath(file.absolute(), store.resolve())
