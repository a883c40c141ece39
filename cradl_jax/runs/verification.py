"""Verify a study, a run or an exported run: checksums, fingerprints, finite weights.

Nothing is written. Checksums say that no file of a finished folder has changed, fingerprints that
the folders belong together.
"""

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cradl_jax.data.scans import fingerprint
from cradl_jax.data.scans.volumes import PACKED
from cradl_jax.data.scans.workers import map_scans
from cradl_jax.data.slices.store import SliceStore, open_store
from cradl_jax.errors import InputError
from cradl_jax.evaluation import results
from cradl_jax.names import BASELINE
from cradl_jax.runs import archive, checkpoints, contents, folder
from cradl_jax.storage import integrity
from cradl_jax.storage.integrity import Progress
from cradl_jax.storage.manifest import read_manifest

AGAIN = "bring it back from a copy, or remove {} and run its command again"
LEFT_OVER = "left by an interrupted write, if no command is at work; remove it"
PARTS = {"densities": "density", "thresholds": "thresholds", "evaluation": "evaluate"}
"""The folders of a run, and the commands that write them."""
HEATMAPS, MAPS = "heatmaps", "maps"
"""What some runs have: the heatmaps of a foreign method on slices, and maps of ours on scans."""
TEMPORARY = (
    *(f"{start}*" for start in integrity.HALF_WRITTEN),
    *("*.partial", "*.orbax-checkpoint-tmp*", "*/tmp????????"),
)
DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError)


class Check(NamedTuple):
    """What was checked, and what is wrong with it, in sentences that say what to do."""

    what: str
    faults: list[str]


def checks(path: Path, progress: Progress | None = None) -> Iterator[Check]:
    """Make all checks of an exported run, a run's folder, or a study's working directory.

    What rests on something that is wrong is not checked.

    Raises:
        InputError: there is nothing to check.
    """
    if path.is_file():
        yield from _until_fault(str(path), _exported(path))
    elif (path / "checkpoints").is_dir() or (path / "evaluation").is_dir():
        yield from _run(path, progress)
        yield _leftovers(path)
    elif (path / "slices").is_dir():
        yield from _study(path, progress)
    else:
        raise InputError(
            f"{path}: expected an exported run, the folder of a run, or a study's working "
            "directory, found none; check the path"
        )


def n_bytes(path: Path) -> int:
    """Return the number of bytes that `checks` hashes."""
    total = 0
    for sums in path.rglob(integrity.SUMS):
        try:
            sealed = [sums.parent / name for name in integrity.sums(sums.parent)]
        except InputError:
            continue
        total += sum(one.stat().st_size for one in sealed if one.is_file())
    return total


def _study(path: Path, progress: Progress | None) -> Iterator[Check]:
    stores, wrong = {}, False
    for place in sorted((path / "slices").iterdir()):
        if place.is_dir() and place.suffix != ".partial":
            for check in _until_fault(str(place), _store(place, stores, progress)):
                wrong |= bool(check.faults)
                yield check
    yield _files(path / "splits", "preprocess", progress)
    for place in sorted(place for place in path.glob("seed*/*") if place.is_dir()):
        for check in _run(place, progress):
            wrong |= bool(check.faults)
            yield check
        if not wrong:
            yield from _until_fault(str(place), _data(place, stores))
    yield (written := _files(path, "report", progress))
    if not (wrong or written.faults):
        yield from _until_fault(str(path / "results.csv"), _results(path))
    yield _leftovers(path)


def _until_fault(what: str, found: Iterable[Check]) -> Iterator[Check]:
    """Yield checks up to the first that finds a fault; one that cannot be made has one."""
    try:
        for check in found:
            yield check
            if check.faults:
                return
    except (InputError, *DAMAGED) as fault:
        named = isinstance(fault, InputError)
        yield Check(what, [str(fault) if named else f"{what}: damaged ({fault!r})"])


def _files(place: Path, command: str, progress: Progress | None) -> Check:
    """Check the files of a finished folder, which a command writes, against their checksums."""
    what = f"{place}: checksums match"
    if not integrity.is_complete(place):
        again = f"was interrupted or never ran; {folder.AGAIN.format(command)}"
        return Check(what, [f"{place}: no {integrity.SUMS}; the command that writes it {again}"])
    again = AGAIN.format(place)
    try:
        faults = list(integrity.faults(place, progress=progress))
        return Check(what, [f"{wrong}: found {found}; {again}" for wrong, found in faults])
    except InputError as fault:
        return Check(what, [str(fault)])


def _leftovers(path: Path) -> Check:
    paths = sorted({left for pattern in TEMPORARY for left in path.rglob(pattern)})
    return Check(f"{path}: no unfinished files", [f"{left}: {LEFT_OVER}" for left in paths])


def _store(
    place: Path, stores: dict[str, SliceStore], progress: Progress | None
) -> Iterator[Check]:
    """Check a slice store, and add it to `stores`."""
    yield _files(place, "preprocess", progress)
    store = open_store(place)
    found = fingerprint.fingerprint_of_records(store.records, store.manifest["settings"])
    expected = store.manifest["fingerprint"]
    other = f"{place}: expected scans of fingerprint {expected}, found {found}; preprocess again"
    what = f"{place}: fingerprint matches scans and settings"
    yield Check(what, [other] if found != expected else [])
    stores[place.name] = store
    yield Check(f"{place}: scans unchanged since they were sliced", list(_sources(store)))


def _sources(store: SliceStore) -> Iterator[str]:
    """Say what is wrong with the scans of a store; nothing where none of them is here any more."""
    files = [
        (store.path / record[what], record[f"{what}_fingerprint"])
        for record in store.records
        for what in ("image", "mask")
        if record[what] is not None
    ]
    if any(path.exists() for path, _ in files):
        label = f"scans of {store.path.name}"
        yield from filter(None, map_scans(_source, files, os.cpu_count() or 1, label))


def _source(file: tuple[Path, str]) -> str | None:
    """Say what is wrong with a file, given its fingerprint when it was sliced."""
    path, expected = file
    if not path.exists():
        return f"{path.resolve()}: moved or removed; bring it back, or preprocess again"
    if fingerprint.file_fingerprint(path) != expected or _damaged(path):
        return f"{path.resolve()}: changed since it was sliced; bring it back, or preprocess again"
    return None


def _damaged(path: Path) -> bool:
    """Return whether a packed file's content is not that of its checksum."""
    if path.suffix.lower() not in PACKED:
        return False
    try:
        with gzip.open(path) as content:
            while content.read(integrity.BLOCK):
                pass
    except (OSError, EOFError, zlib.error):
        return True
    return False


def _run(place: Path, progress: Progress | None) -> Iterator[Check]:
    """Check a run: first all its files, then what is in them."""
    files = [_files(one, command, progress) for one, command in _commands(place).items()]
    yield from files
    if not any(check.faults for check in files):
        yield from _until_fault(str(place), _content(place))


def _commands(place: Path) -> dict[Path, str]:
    """Return the finished folders that a run should have, each with the command that writes it."""
    if (place / HEATMAPS).is_dir():
        command = f"evaluate_maps --name={place.name} --maps=..."
        return {place / part: command for part in (HEATMAPS, "thresholds", "evaluation")}
    parts = {".": "density" if place.name == BASELINE else "train --resume", **PARTS}
    if not _has_densities(place):
        del parts["densities"]
    if (place / MAPS).is_dir():
        parts[MAPS] = "evaluate --maps"
    return {place / part: command for part, command in parts.items()}


def _has_densities(place: Path) -> bool:
    """Return whether a run should have densities; one whose manifest cannot be read should."""
    try:
        return folder.has_densities(place)
    except (InputError, *DAMAGED):
        return True


def _content(place: Path) -> Iterator[Check]:
    """Check that checkpoints, densities, thresholds and results of a run belong together.

    A foreign method has neither checkpoints nor densities, but heatmaps; a network without an
    encoder has no densities, and the baselines have no checkpoints.
    """
    if (place / HEATMAPS).is_dir():
        manifest = read_manifest(place / HEATMAPS)
        made_from, data = manifest["fingerprint"], manifest["settings"]["data"]["healthy"]
    else:
        manifest = read_manifest(place)
        if place.name != BASELINE:
            states = checkpoints.read_all(place, contents.template(manifest["settings"]))
            yield _finite(f"{place / 'checkpoints'}: belong to this run", place, states)
        if folder.has_densities(place):
            fitted = folder.read_densities(place)
            yield _finite(f"{place / 'densities'}: belong to this run", place, fitted)
        made_from, data = folder.read_fingerprint(place), manifest["made_from"]
    folder.read_thresholds(place, made_from, data)
    folder.read_results(place, made_from, data)
    yield Check(f"{place}: thresholds and results belong to this run and its data", [])


def _exported(path: Path) -> Iterator[Check]:
    run = archive.read(path)
    weights = [run.variables, run.densities, run.of_features]
    yield _finite(f"{path}: unchanged since export", path, weights)


def _finite(what: str, place: Path, tree: Any) -> Check:
    broken = sum(not np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(tree)))
    fault = f"{place}: expected finite numbers, found {broken} arrays with others; train again"
    return Check(f"{what}, all values finite", [fault] if broken else [])


def _data(place: Path, stores: dict[str, SliceStore]) -> Iterator[Check]:
    """Check that a run's data are those of the stores beside it."""
    prints = read_manifest(place / "evaluation")["settings"]["data"]
    faults = [
        f"{place}: expected the data of {store.path} ({store.manifest['fingerprint']}), found "
        f"others ({prints.get(name)}); bring back the store, or run the study again"
        for name, store in stores.items()
        if prints.get(name) != store.manifest["fingerprint"]
    ]
    yield Check(f"{place}: made from the slices of this study", faults)


def _results(path: Path) -> Iterator[Check]:
    """Check that the study's results are those of its runs."""
    place = path / "results.csv"
    rows = results.read_csv(place)
    runs = dict.fromkeys((row.seed, row.method) for row in rows)
    parts = [path / f"seed{seed}" / method / "evaluation" for seed, method in runs]
    evaluated = [row for part in parts for row in results.read_csv(part / "results.csv")]
    other = f"{place}: expected the results of {', '.join(map(str, parts))}, found others; report"
    same = list(map(repr, rows)) == list(map(repr, evaluated))  # NaN is not equal to itself
    yield Check(f"{place}: matches the results of the runs", [] if same else [f"{other} again"])
