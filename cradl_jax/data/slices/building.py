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
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from numpy.lib import format as npy
from tqdm import tqdm

import cradl_jax
from cradl_jax.data.scans.checks import Annotated, empty_masks, most_slices_of, read_scan
from cradl_jax.data.scans.fingerprint import file_fingerprints, fingerprint_of_records
from cradl_jax.data.scans.layouts import Scan, raise_faults
from cradl_jax.data.scans.preparation import stated_preparation
from cradl_jax.data.scans.volumes import read_origin
from cradl_jax.data.scans.workers import map_scans
from cradl_jax.data.slices import journal
from cradl_jax.data.slices.journal import Shard, relative
from cradl_jax.data.slices.preprocess import Slices, normalized_slices
from cradl_jax.data.slices.scan_statistics import describe
from cradl_jax.data.slices.store import (
    ARRAYS,
    DESCRIPTIONS,
    FILES,
    FORMAT,
    WORK,
    SliceStore,
    find_store,
    open_store,
)
from cradl_jax.errors import InputError
from cradl_jax.storage import locks
from cradl_jax.storage.files import require_space, write_json
from cradl_jax.storage.integrity import write_checksums


class Job(NamedTuple):
    """A store that is being built.

    Attributes:
        path: of the finished store.
        scans: of the data set.
        settings: see `normalized_slices`.
        annotated: which scans need a mask, see `checks.Annotated`; None makes no demand.
        reserved: rows for each scan's slices: as many as it has if the brain fills it. Those that
            are not needed stay empty, and take no space on the disk.
    """

    path: Path
    scans: Sequence[Scan]
    settings: Mapping[str, Any]
    annotated: Annotated | None
    reserved: Sequence[int]

    @property
    def starts(self) -> np.ndarray:
        """[scans + 1] int: the first row of each scan, and the number of all rows."""
        return np.cumsum([0, *self.reserved])

    @property
    def partial(self) -> Path:
        """The folder of the unfinished store."""
        return journal.partial(self.path)

    def lock(self) -> AbstractContextManager:
        """Return the lock to be held while the folder is made, and while it becomes the store."""
        return locks.held(
            self.path.with_name(f".{self.path.name}.lock"), f"the store {self.path.name}"
        )


def build_store(
    path: Path,
    scans: Sequence[Scan],
    *,
    workers: int,
    shard: Shard | None = None,
    **settings: Any,
) -> SliceStore | None:
    """Return the slice store at `path`, made from the scans unless it is there already.

    It is written to `<path>.partial` and renamed when it is complete. What is sliced already, by
    this process or by shards, is kept if it is of the same scans and settings: those of
    `normalized_slices`. A number of `workers` slice a scan each at a time. A shard slices its share
    of the scans; None slices all, or, if shards have begun, none: what they wrote becomes the
    store.

    Returns:
        The store; for a shard None while others are not done.

    Raises:
        InputError: If a scan cannot be used, the disk is too small, `path` is another folder, a
            shard's scans are missing, or shards have begun with other scans or settings.
    """
    if store := find_store(path, scans, **settings):
        return store
    job = plan_job(path, scans, settings, workers)
    raise_faults(slice_scans(job, shard, workers))
    return complete_store(job, shard)


def plan_job(
    path: Path,
    scans: Sequence[Scan],
    settings: Mapping[str, Any],
    workers: int,
    annotated: Annotated | None = None,
) -> Job:
    """Find room for the slices of each scan, from the headers alone; nothing is written.

    Raises:
        InputError: If `path` is another folder, or headers are at fault. All faults are named.
    """
    check_place(path)
    faults: list[str] = []

    def room(scan: Scan) -> int:
        return most_slices_of(read_origin(scan.image), settings)

    reserved = list(map_scans(room, scans, workers, f"headers of {path.name}", faults))
    raise_faults(faults)
    return Job(path, scans, settings, annotated, reserved)


def check_place(path: Path) -> None:
    """Raise an `InputError` if at the path of a store is another folder, or a file."""
    if path.exists() and not (path.is_dir() and {f.name for f in path.iterdir()} <= FILES):
        raise InputError(
            f"{path}: expected a slice store or nothing, found other files; choose another folder"
        )


def byte_size(rows: int, size: int) -> int:
    """Return the bytes of a store's arrays of so many rows, if none of them is empty."""
    return rows * size**2 * sum(np.dtype(dtype).itemsize for dtype in ARRAYS.values())


def slice_scans(job: Job, shard: Shard | None, workers: int) -> list[str]:
    """Slice what is not sliced yet of a job, or of a shard's share of it, each scan read once.

    Scans at fault are passed over, so that all are named and the others are not sliced again.

    Returns:
        The faults.

    Raises:
        InputError: If the disk is too small, or shards have begun with other scans or settings.
    """
    with job.lock():
        if find_store(job.path, job.scans, **job.settings):
            return []
        _prepare(job)
        merging = shard is None and journal.shards_begun(job.path) > 1
        notes = journal.begin(job.path, shard or Shard())
    faults = [] if merging else _slice(job, shard or Shard(), notes, workers)
    return faults or _unmarked(job)


def _prepare(job: Job) -> None:
    """Make the arrays, unless those of the same scans and settings are there."""
    plan = journal.plan(job.path, job.scans, job.settings, job.reserved)
    if journal.read_plan(job.path) == plan:
        return
    if journal.shards_begun(job.path) > 1:
        raise InputError(
            f"{job.partial}: holds what shards sliced of other scans or with other settings; if "
            "none is at work any more, remove that folder"
        )
    shutil.rmtree(job.partial, ignore_errors=True)
    shape = (sum(job.reserved), job.settings["size"], job.settings["size"])
    require_space(job.path.parent, byte_size(*shape[:2]), f"{shape[0]} slices")
    journal.work(job.path).mkdir(parents=True)
    for name, dtype in ARRAYS.items():
        npy.open_memmap(job.partial / f"{name}.npy", mode="w+", dtype=dtype, shape=shape).flush()
    write_json(journal.work(job.path) / "plan.json", plan)


def _slice(job: Job, shard: Shard, notes: Path, workers: int) -> list[str]:
    """Slice a shard's scans that no journal names, and note each in its own; return the faults."""
    done = journal.lines(job.path, job.scans)
    todo = [number for number in shard.share(len(job.scans)) if number not in done]
    label = f"slicing {job.path.name}" + (f", shard {shard}" if shard.count > 1 else "")
    faults: list[str] = []
    journal.write_lines(notes, map_scans(partial(_write_scan, job), todo, workers, label, faults))
    return faults


def _unmarked(job: Job) -> list[str]:
    """Return the fault of a sliced data set that needs anomalies, if no mask has any."""
    if job.annotated in (None, "none"):
        return []
    lines = journal.lines(job.path, job.scans)
    if len(lines) < len(job.scans) or any(line["marked"] for line in lines.values()):
        return []
    return [empty_masks(job.scans)]


def _write_scan(job: Job, number: int) -> journal.Line:
    """Slice a scan into the arrays, and return its line for the journal."""
    scan = job.scans[number]
    stamps = journal.stamps(scan)
    volume, mask = read_scan(scan, job.settings, job.annotated)
    if volume.background is not None:
        tqdm.write(
            f"warning: {scan.image}: the background is nearly or throughout "
            f"{volume.background:.3g}, it was set to 0; check the brain extraction",
            file=sys.stderr,
        )
    slices, mean, std = normalized_slices(volume.data, mask, volume.spacing_mm, **job.settings)
    _write_rows(job.partial, slices, job.starts[number])
    image_fingerprint, mask_fingerprint = file_fingerprints(scan)
    preparation = stated_preparation(scan.image)
    record = {
        "subject": scan.subject,
        "split": scan.split,
        "image": relative(scan.image, job.path),
        "mask": relative(scan.mask, job.path),
        "image_fingerprint": image_fingerprint,
        "mask_fingerprint": mask_fingerprint,
        "mean": mean,
        "std": std,
        "affine": volume.affine.tolist(),
        "preparation": preparation and preparation.model_dump(),
        **asdict(slices.geometry),
    }
    return {
        "scan": number,
        "stamps": stamps,
        "record": record,
        "index": [
            (int(job.starts[number] + k), int(slices.z_index[k]), float(slices.position[k]))
            for k in np.flatnonzero(slices.counted)
        ],
        "marked": 0 if mask is None else int(np.count_nonzero(mask)),
        "description": describe(volume)._asdict() if scan.split == "train" else None,
    }


def _write_rows(folder: Path, slices: Slices, first: int) -> None:
    """Write a scan's slices to the arrays, from the row `first`, and to the disk."""
    for name, dtype in ARRAYS.items():
        rows = np.ascontiguousarray(getattr(slices, name), dtype)
        with (folder / f"{name}.npy").open("r+b") as file:
            npy.read_magic(file)
            npy.read_array_header_1_0(file)
            file.seek(int(first) * rows[0].nbytes, os.SEEK_CUR)
            file.write(rows.data)
            file.flush()
            os.fsync(file.fileno())


def complete_store(job: Job, shard: Shard | None) -> SliceStore | None:
    """Make a store of the slices if all are there; for a shard return None if some are not.

    Raises:
        InputError: If shards have not sliced all scans.
    """
    with job.lock():
        if not job.partial.exists():  # another process was faster
            return open_store(job.path)
        lines = journal.lines(job.path, job.scans)
        missing = set(range(len(job.scans))) - lines.keys()
        if missing and shard is not None and shard.count > 1:
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
    """Return the fault that some shards are not done, which names them."""
    count, shards = journal.shards_begun(job.path), []
    for shard in (Shard(number, count) for number in range(1, count + 1)):
        mine = [number for number in shard.share(len(job.scans)) if number in missing]
        if mine:
            shards.append(
                f"shard {shard}: {len(mine)} scans not sliced, e.g. {job.scans[mine[0]].image}; "
                f"run --shard={shard}"
            )
    return (
        f"{job.partial}: expected the slices of {count} shards, found that some are missing "
        f"({'; '.join(shards)}), or wait for those at work, or remove that folder to slice again"
    )


def _complete(job: Job, lines: Sequence[journal.Line]) -> None:
    """Write what a store has beside its arrays, the checksums last."""
    with (job.partial / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "scan", "subject", "split", "z", "position"])
        for number, (scan, line) in enumerate(zip(job.scans, lines, strict=True)):
            for row, z, position in line["index"]:
                writer.writerow([row, number, scan.subject, scan.split, z, np.float32(position)])
    records = [line["record"] for line in lines]
    (job.partial / "scans.json").write_text(json.dumps(records, indent=1))
    descriptions = [line["description"] for line in lines if line["description"] is not None]
    (job.partial / DESCRIPTIONS).write_text(json.dumps(descriptions))
    manifest = json.dumps(
        _manifest(job, records, sum(len(line["index"]) for line in lines)), indent=1
    )
    (job.partial / "manifest.json").write_text(manifest)
    with tqdm(desc=f"checksums of {job.path.name}", unit="B", unit_scale=True) as bar:
        write_checksums(job.partial, progress=bar.update)


def _manifest(job: Job, records: Sequence[dict], slices: int) -> dict:
    return {
        "format": FORMAT,
        "fingerprint": fingerprint_of_records(records, job.settings),
        "settings": dict(job.settings),
        "scans": dict(Counter(str(scan.split) for scan in job.scans)),
        "slices": slices,
        "rows": int(job.starts[-1]),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "nibabel": nibabel.__version__,
            "cradl_jax": cradl_jax.__version__,
        },
    }
