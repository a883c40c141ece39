"""Build a slice store, by one process or by several, shards, which slice a share of the scans each.

The arrays of `<path>.partial` have their full size from the start, sparse, and each scan's rows are
written in place. They are on the disk before the scan's line in the journal (`journal`), so that a
shard which is killed, even with its machine, goes on with the scans that have no line. No two
shards write the same bytes, and none maps memory that another host writes to. The last one adds
the index and renames the folder.
"""

import csv
import json
import os
import platform
import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from numpy.lib.format import open_memmap
from tqdm import tqdm

import cradl_jax
from cradl_jax.data.scans.fingerprint import contents_of, of_contents
from cradl_jax.data.scans.layouts import Scan
from cradl_jax.data.scans.volumes import read_mask, read_origin, read_volume
from cradl_jax.data.scans.workers import map_scans
from cradl_jax.data.slices import journal
from cradl_jax.data.slices.journal import Shard, relative
from cradl_jax.data.slices.preprocess import (
    SliceGeometry,
    Slices,
    normalized_slices,
    slice_geometry,
)
from cradl_jax.data.slices.store import ARRAYS, FILES, WORK, SliceStore, find_store, open_store
from cradl_jax.errors import InputError
from cradl_jax.storage import locks
from cradl_jax.storage.files import require_space
from cradl_jax.storage.integrity import write_checksums


class Job(NamedTuple):
    """A store that is being built.

    Attributes:
        path: of the finished store.
        scans: of the data set.
        settings: see `slice_geometry`.
        geometries: of the scans' slices.
    """

    path: Path
    scans: Sequence[Scan]
    settings: dict[str, Any]
    geometries: Sequence[SliceGeometry]

    @property
    def stops(self) -> np.ndarray:
        """[scans] int: the row after the last one of each scan."""
        return np.cumsum([geometry.n_slices for geometry in self.geometries])

    @property
    def partial(self) -> Path:
        """The folder of the unfinished store."""
        return journal.partial(self.path)

    def lock(self) -> AbstractContextManager:
        """Held while the folder is made, and while it becomes the store."""
        return locks.held(
            self.path.with_name(f".{self.path.name}.lock"), f"the store {self.path.name}"
        )


def build_store(
    path: Path,
    scans: Sequence[Scan],
    *,
    size: int,
    offset: int,
    slice_spacing_mm: float | None = None,
    workers: int,
    shard: Shard | None = None,
) -> SliceStore | None:
    """The slice store at `path`, made from the scans unless it is there already.

    It is written to `<path>.partial` and renamed when it is complete. What is sliced already, by
    this process or by shards, is kept if it is of the same scans and settings.

    Args:
        path: Folder of the store.
        scans: The data set.
        size: See `slice_geometry`, as for the next two.
        offset: Number of slices left out at each end of a volume.
        slice_spacing_mm: Distance of neighboring slices; None keeps that of the volume.
        workers: Number of scans sliced at once.
        shard: Which share of the scans to slice; None: all, or, if shards have begun, none: what
            they wrote becomes the store.

    Returns:
        The store; for a shard None while others are not done.

    Raises:
        InputError: If a scan cannot be used, the disk is too small, `path` is another folder, a
            shard's scans are missing, or shards have begun with other scans or settings.
    """
    settings = {"size": size, "offset": offset, "slice_spacing_mm": slice_spacing_mm}
    store = find_store(path, scans, **settings)
    if store is not None:
        shutil.rmtree(path / WORK, ignore_errors=True)  # a process was killed before it did so
        return store
    if path.exists() and not (path.is_dir() and {f.name for f in path.iterdir()} <= FILES):
        raise InputError(
            f"{path}: expected a slice store or nothing, found other files; choose another folder"
        )
    geometry = partial(_geometry, settings=settings)
    headers = map_scans(geometry, scans, workers, f"headers of {path.name}")
    job = Job(path, scans, settings, list(headers))
    with job.lock():
        _prepare(job)
        merging = shard is None and journal.shards_begun(path) > 1
        notes = journal.begin(path, shard or Shard())
    if not merging:
        _slice(job, shard or Shard(), notes, workers)
    with job.lock():
        return _finish(job, shard or Shard())


def _geometry(scan: Scan, settings: dict) -> SliceGeometry:
    origin = read_origin(scan.image)
    try:
        return slice_geometry(origin.ras_shape, origin.spacing_mm, **settings)
    except InputError as fault:
        raise InputError(f"{scan.image}: {fault}") from fault


def _prepare(job: Job) -> None:
    """Make the arrays, unless those of the same scans and settings are there."""
    n_slices = [geometry.n_slices for geometry in job.geometries]
    plan = journal.plan(job.path, job.scans, job.settings, n_slices)
    if journal.read_plan(job.path) == plan:
        return
    if journal.shards_begun(job.path) > 1:
        raise InputError(
            f"{job.partial}: holds what shards sliced of other scans or with other settings; if "
            "none is at work any more, remove that folder"
        )
    shutil.rmtree(job.partial, ignore_errors=True)
    size = job.settings["size"]
    job.path.parent.mkdir(parents=True, exist_ok=True)
    pixel_bytes = sum(np.dtype(dtype).itemsize for dtype in ARRAYS.values())
    needed = sum(n_slices) * size**2 * pixel_bytes
    require_space(job.path.parent, needed, f"{sum(n_slices)} slices")
    journal.work(job.path).mkdir(parents=True)
    for name, dtype in ARRAYS.items():
        shape = (sum(n_slices), size, size)
        open_memmap(job.partial / f"{name}.npy", mode="w+", dtype=dtype, shape=shape).flush()
    journal.write_plan(job.path, plan)


def _slice(job: Job, shard: Shard, notes: Path, workers: int) -> None:
    """Slice a shard's scans that no journal names, and note each in its own."""
    done = journal.lines(job.path, job.scans)
    todo = [number for number in shard.share(len(job.scans)) if number not in done]
    label = f"slicing {job.path.name}" + (f", shard {shard}" if shard.count > 1 else "")
    journal.write_lines(notes, map_scans(partial(_write_scan, job), todo, workers, label))


def _write_scan(job: Job, number: int) -> journal.Line:
    """Slice a scan into the arrays; returns its line for the journal."""
    scan, geometry = job.scans[number], job.geometries[number]
    files = journal.marks(scan)
    slices, facts = _slice_scan(scan, job.settings)
    _write_rows(job.partial, slices, int(job.stops[-1] - job.stops[number]) + geometry.n_slices)
    names = {what: relative(getattr(scan, what), job.path) for what in ("image", "mask")}
    names |= dict(zip(("image_digest", "mask_digest"), contents_of(scan), strict=True))
    record = {"subject": scan.subject, "split": scan.split, **names, **facts, **asdict(geometry)}
    index = [[int(z), float(p)] for z, p in zip(slices.z_index, slices.position, strict=True)]
    return {"scan": number, "files": files, "record": record, "index": index}


def _slice_scan(scan: Scan, settings: dict) -> tuple[Slices, dict]:
    """The slices of one scan, and its affine and the moments of its intensity."""
    volume = read_volume(scan.image)
    mask = None if scan.mask is None else read_mask(scan.mask, volume)
    slices, mean, std = normalized_slices(volume.data, mask, volume.spacing_mm, **settings)
    return slices, {"mean": mean, "std": std, "affine": volume.affine.tolist()}


def _write_rows(folder: Path, slices: Slices, from_end: int) -> None:
    """Write a scan's slices to the arrays, `from_end` rows before their end, and to the disk."""
    for name, dtype in ARRAYS.items():
        rows = np.ascontiguousarray(getattr(slices, name), dtype)
        with (folder / f"{name}.npy").open("r+b") as file:
            file.seek(-from_end * rows[0].nbytes, os.SEEK_END)
            file.write(rows.data)
            file.flush()
            os.fsync(file.fileno())


def _finish(job: Job, shard: Shard) -> SliceStore | None:
    """Complete the store if all scans are sliced; see `build_store`."""
    if not job.partial.exists():  # another process was faster
        return open_store(job.path)
    lines = journal.lines(job.path, job.scans)
    missing = set(range(len(job.scans))) - lines.keys()
    if missing and shard.count > 1:
        return None
    if missing:
        raise InputError(_unfinished(job, missing))
    _complete(job, [lines[number] for number in range(len(job.scans))])
    if job.path.exists():
        shutil.rmtree(job.path)
    job.partial.rename(job.path)
    shutil.rmtree(job.path / WORK)
    return open_store(job.path)


def _unfinished(job: Job, missing: Collection[int]) -> str:
    """Which shards are not done, in words."""
    count, said = journal.shards_begun(job.path), []
    for shard in (Shard(number, count) for number in range(1, count + 1)):
        mine = [number for number in shard.share(len(job.scans)) if number in missing]
        if mine:
            said.append(
                f"shard {shard}: {len(mine)} scans not sliced, e.g. {job.scans[mine[0]].image}; "
                f"run --shard={shard}"
            )
    return (
        f"{job.partial}: expected the slices of {count} shards, found that some are missing "
        f"({'; '.join(said)}), or wait for those at work, or remove that folder to slice anew"
    )


def _complete(job: Job, lines: Sequence[journal.Line]) -> None:
    """Write what a store has beside its arrays, the hashes last."""
    with (job.partial / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["scan", "subject", "split", "z", "position"])
        for number, (scan, line) in enumerate(zip(job.scans, lines, strict=True)):
            for z, position in line["index"]:
                writer.writerow([number, scan.subject, scan.split, z, np.float32(position)])
    records = [line["record"] for line in lines]
    (job.partial / "scans.json").write_text(json.dumps(records, indent=1))
    manifest = json.dumps(_manifest(job, records), indent=1)
    (job.partial / "manifest.json").write_text(manifest)
    with tqdm(desc=f"hashing {job.path.name}", unit="B", unit_scale=True) as bar:
        write_checksums(job.partial, progress=bar.update)


def _manifest(job: Job, records: Sequence[dict]) -> dict:
    contents = [(r["subject"], r["split"], r["image_digest"], r["mask_digest"]) for r in records]
    return {
        "fingerprint": of_contents(contents, job.settings),
        "settings": job.settings,
        "scans": dict(Counter(str(scan.split) for scan in job.scans)),
        "slices": int(job.stops[-1]),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "nibabel": nibabel.__version__,
            "cradl_jax": cradl_jax.__version__,
        },
    }
