"""Prepare many scans, each worker one at a time on a core: the body of experiments.prepare."""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from cradl_jax.data.scans import bids
from cradl_jax.data.scans.contrasts import T2W
from cradl_jax.data.scans.layouts import Scan, list_scans, raise_faults, read_table, stem
from cradl_jax.data.scans.preparation import NONE, Preparation, stated_preparation
from cradl_jax.data.scans.volumes import read_mask
from cradl_jax.errors import InputError
from cradl_jax.prediction import inputs
from cradl_jax.preparation import files, images, quality
from cradl_jax.preparation.extraction import command_of, read_source
from cradl_jax.preparation.files import Source, source_of
from cradl_jax.preparation.scan import prepare
from cradl_jax.preparation.template import load_template
from cradl_jax.storage import locks
from cradl_jax.storage.files import no_space, require_writable

Job = tuple[Source, Path, Preparation]


def run(
    scans: Path,
    out: Path,
    settings: Preparation,
    *,
    workers: int,
    resume: bool,
    layout: str | None = None,
    contrast: str = T2W,
) -> int:
    """Prepare all scans, and return how many failed.

    Args:
        scans: a folder of volumes, a BIDS folder, or a CSV file with a column `image` and
            optionally `subject`, `split` and `mask`.
        out: folder of the derivative.
        settings: the same for all.
        workers: scans at once; 0 takes all cores.
        resume: keep what was prepared from the same files; otherwise prepare all anew.
        layout: of the scans, see `list_scans`; None: BIDS if it looks so, else any volumes.
        contrast: which scans to take of a layout; from elsewhere all are taken.

    Raises:
        InputError: If there is no scan, two have one name, a tool is missing, or the folder holds
            scans that were prepared otherwise, or cannot be written to.
    """
    sources = find_sources(scans, layout, contrast)
    images.itk()
    if settings.extract != NONE:
        command_of(settings.extract)
    require_writable(out, "--out")
    with locks.held(out / ".locks" / "prepare.lock", "preparation"):
        return _run(sources, scans, out, settings, workers, resume)


def _run(
    sources: Sequence[Source],
    scans: Path,
    out: Path,
    settings: Preparation,
    workers: int,
    resume: bool,
) -> int:
    """Do what `run` promises, once nobody else works in the folder."""
    files.check_made_alike(out, scans, settings)
    files.check_contrasts(out, sources)
    files.write_description(out, str(scans), settings)
    records = {s: files.read_record(out, s, settings) for s in sources} if resume else {}
    records = {source: record for source, record in records.items() if record}
    todo = [source for source in sources if source not in records]
    failed: dict[str, str] = {}
    jobs = [(source, out, settings) for source in todo]
    results = tqdm(_attempts(jobs, workers), "prepare", len(todo), unit="scan")
    for source, result in zip(todo, results, strict=True):
        if isinstance(result, str):
            failed[source.label] = result
            about = "" if str(source.scan.image) in result else f"{source.scan.image}: "
            tqdm.write(f"error: {about}{result}", file=sys.stderr)
        else:
            records[source] = result
    done = [source for source in sources if source in records]
    _write_participants(out, done)
    judged = quality.judge(done, [records[source] for source in done])
    page = quality.write_page(out, judged, failed, load_template())
    flagged = sum(bool(one.reasons) for one in judged)
    print(f"{len(done)} of {len(sources)} scans prepared, {flagged} of them unusual: {page}")
    return len(failed)


def _attempts(jobs: Sequence[Job], workers: int) -> Iterator[dict[str, Any] | str]:
    """Yield what `_attempt` returns of each job in order; a signal ends the workers, too."""
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers < 2:
        yield from map(_attempt, jobs)
        return
    spawned = multiprocessing.get_context("spawn")  # threads of SimpleITK do not survive a fork
    this = psutil.Process()
    others = set(this.children(recursive=True))
    pool = ProcessPoolExecutor(workers, spawned)
    try:
        yield from pool.map(_attempt, jobs)
    except BrokenProcessPool as fault:
        raise InputError(
            "workers: expected them to end, found one that was killed, most likely for lack of "
            "memory; the same command with fewer --workers goes on"
        ) from fault
    except BaseException:
        for process in set(this.children(recursive=True)) - others:  # tools among them
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(job: Job) -> dict[str, Any] | str:
    """Prepare a scan and write it; return its record, or why it failed.

    Raises:
        OSError: The disk is full, so that the others would fail, too.
    """
    source, out, settings = job
    try:
        files.remove(out, source)
        volume = read_source(source.scan.image, settings.extract)
        marked = None if source.scan.mask is None else read_mask(source.scan.mask, volume.origin)
        prepared = prepare(volume, marked, settings, load_template())
        return files.write(out, source, prepared, settings)
    except (InputError, ArithmeticError, MemoryError, OSError, RuntimeError) as fault:
        if no_space(fault):
            raise
        return str(fault) if isinstance(fault, InputError) else repr(fault)


def find_sources(path: Path, layout: str | None = None, contrast: str = T2W) -> list[Source]:
    """Find the scans at `path`, see `run`.

    Raises:
        InputError: If there is none, a list is at fault, or names are not fit for BIDS or not
            each scan's own.
    """
    if layout is None and path.is_dir() and any(path.glob("sub-*/")):
        layout = "bids"
    if layout is not None:
        scans, faults = list_scans(path, layout, contrast)
    elif path.is_file() and path.suffix.lower() == ".csv":
        scans, faults = _listed(path), []
    else:
        scans = [Scan(stem(one.image), one.image, None, None) for one in inputs.find_scans(path)]
        faults = []
    sources, taken = [source_of(scan) for scan in scans], {}
    for source in sources:
        if stated_preparation(source.scan.image) is not None:
            faults.append(
                f"{source.scan.image}: expected a raw scan, found one that experiments.prepare "
                "made; give the scan that it was made from"
            )
        if source.subject == "sub-":
            faults.append(f"{source.scan.image}: expected a name with letters or digits; rename it")
        other = taken.setdefault(source.label.casefold(), source)
        if other is not source:
            faults.append(
                f"{source.scan.image}: expected a name of its own, found that {source.label} is "
                f"also {other.scan.image}; list them in a CSV file with a subject each"
            )
    raise_faults(faults)
    return sources


def _listed(path: Path) -> list[Scan]:
    scans, faults = [], []
    for line, row in read_table(path, delimiter=",", columns=("image",)):
        image = path.parent / Path(row["image"]).expanduser()
        mask = path.parent / Path(row["mask"]).expanduser() if row.get("mask") else None
        lost = [one for one in (image, mask) if one and not one.is_file()]
        faults += [f"{path}, line {line}: expected the file {one}, found none" for one in lost]
        scans.append(Scan(row.get("subject") or stem(image), image, mask, row.get("split") or None))
    raise_faults(faults)
    return scans


def _write_participants(out: Path, done: Sequence[Source]) -> None:
    """Write which subject is in which split, if the source says it; earlier sources' are kept."""
    splits = {source.subject: source.scan.split for source in done if source.scan.split}
    bids.write_participants(out, files.read_splits(out) | splits)
