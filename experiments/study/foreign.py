"""Take in a foreign method: maps of the study's scans that any tool made.

They are brought onto the slices as images are, post-processed unless that is not wanted, and stored
in the method's run folder. From there on it is evaluated as our own methods are.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from ml_collections import ConfigDict
from numpy.lib import format as npy
from tqdm import tqdm

from cradl_jax.data.scans.fingerprint import file_fingerprint
from cradl_jax.data.scans.volumes import Volume, read_volume
from cradl_jax.data.scans.workers import map_scans
from cradl_jax.data.slices.store import SliceStore
from cradl_jax.errors import InputError
from cradl_jax.names import OURS
from cradl_jax.postprocess import over_neighbours, postprocess
from cradl_jax.prediction.foreign_maps import (
    MappedScan,
    ScoreTable,
    find_maps,
    in_short,
    read_on_slices,
    read_scan_scores,
    read_scores,
    scan_names,
    scores_of,
)
from cradl_jax.storage.files import require_space, write_arrays
from cradl_jax.storage.integrity import check, is_complete, write_checksums
from cradl_jax.storage.manifest import read_manifest, write_fingerprint, write_manifest
from experiments.cli.locking import exclusive_stage
from experiments.study import data_sets, runs
from experiments.study.settings import of_heatmaps
from experiments.study.stored_maps import (
    FOLDER,
    GIVEN,
    MAXIMUM,
    SCAN_SCORES,
    SCORES,
    evaluated_rows,
)

NAME = re.compile(r"\w(?:[\w .+-]{0,62}[\w+])?")
AT_ONCE = 64  # slices
Table = TypeVar("Table")


class Source(NamedTuple):
    """What the command line names of a foreign method.

    Attributes:
        maps: the folder of its maps.
        scores: a table of its slice scores; None: the maximum of each slice's map.
        scan_scores: a table of its scores of whole scans, if it has any.
        postprocess: whether its maps are post-processed as ours.
    """

    maps: Path
    scores: Path | None
    scan_scores: Path | None
    postprocess: bool


class Evaluated(NamedTuple):
    """A scan whose slices are evaluated, or that thresholds are found on.

    Attributes:
        scan: its data set, name and file.
        store: of its data set.
        rows: [n] of its slices in the store.
        places: [n] of its slices among `evaluated_rows`.
        slices: [n] of its slices in the stack that its geometry describes.
        record: of the scan in the store.
    """

    scan: MappedScan
    store: SliceStore
    rows: np.ndarray
    places: np.ndarray
    slices: np.ndarray
    record: Mapping


def check_name(name: str) -> None:
    """Raise an InputError unless a foreign method can have that name."""
    if name.casefold() in OURS:
        raise InputError(
            f"--name: expected another name than those of our methods ({', '.join(OURS)}), found "
            f"{name!r}; choose another"
        )
    if not NAME.fullmatch(name):
        raise InputError(
            f"--name: expected up to 64 letters, digits, spaces, '_', '-', '+' and '.', found "
            f"{name!r}; results and folders are named so, choose another"
        )


def evaluated_scans(opened: Mapping[str, SliceStore]) -> list[Evaluated]:
    """Return the validation and test scans of all data sets, in the order of the stores."""
    scans = []
    for data_set, store in opened.items():
        place = store.path.resolve()  # a scan may be a link to a file of another name
        images = [Path(os.path.normpath(place / record["image"])) for record in store.records]
        names = scan_names([record["subject"] for record in store.records], images)
        rows = evaluated_rows(store)
        for number in np.unique(store.scans[rows]):
            record, places = store.records[number], np.flatnonzero(store.scans[rows] == number)
            scan = MappedScan(data_set, names[number], images[number])
            own = rows[places]
            scans.append(
                Evaluated(scan, store, own, places, store.z[own] - record["offset"], record)
            )
    return scans


def read_evaluated(one: Evaluated) -> Volume:
    """Read the scan that slices were cut from.

    Raises:
        InputError: it is gone, or has changed since.
    """
    image = one.scan.image
    if not image.exists():
        raise InputError(
            f"{image}: expected the scan whose slices are in {one.store.path}, found none; its map "
            "lies on its voxels, so bring it back"
        )
    if file_fingerprint(image) != one.record["image_fingerprint"]:
        raise InputError(
            f"{image}: expected the scan as it was sliced, found another content; bring it back, "
            "or preprocess again"
        )
    return read_volume(image)


@exclusive_stage("maps of {}, seed {seed}")
def take_in(config: ConfigDict, workdir: Path, method: str, source: Source) -> None:
    """Store the maps and scores of a foreign method, unless they are there.

    Raises:
        InputError: maps are missing, or do not fit their scans (all are named), or the folder holds
            other maps.
    """
    folder = runs.folder(workdir, config.seed, method) / FOLDER
    opened = data_sets.stores(config, workdir)
    scans = evaluated_scans(opened)
    named = [one.scan for one in scans]
    maps, others = find_maps(source.maps, named)
    if others:
        print(f"passed over, since of no scan that is evaluated: {in_short(others)}")
    table = _read(read_scores, source.scores, named)
    of_scans = _read(read_scan_scores, source.scan_scores, named)
    made_from = _fingerprint(scans, maps, source)
    about = {
        "method": method,
        "postprocess": source.postprocess,
        "score": GIVEN if source.scores else MAXIMUM,
        **({"scan_scores": GIVEN} if source.scan_scores else {}),
        **(of_heatmaps(config, method) if source.postprocess else {}),
        "data": {name: store.manifest["fingerprint"] for name, store in opened.items()},
    }
    if is_complete(folder):
        _check_same(folder, about, made_from)
        return
    size = config.data.size**2 * np.dtype(np.float32).itemsize
    rows = {name: len(evaluated_rows(store)) for name, store in opened.items()}
    require_space(folder, size * sum(rows.values()), f"the heatmaps of {method}")
    try:
        _store(config, folder, scans, maps, table, source)
    except InputError:
        shutil.rmtree(folder)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()
        raise
    if of_scans is not None:
        write_arrays(folder / SCAN_SCORES, _by_data_set(of_scans, named))
    write_manifest(folder, about, made_from)
    write_fingerprint(folder, blake2b(f"{made_from}{about}".encode(), digest_size=16).hexdigest())
    write_checksums(folder)


def _read(
    reader: Callable[[Path, Sequence[MappedScan]], tuple[Table, list[str]]],
    path: Path | None,
    scans: Sequence[MappedScan],
) -> Table | None:
    """Read a table of scores, if there is one, and say which names in it are passed over."""
    if path is None:
        return None
    table, others = reader(path, scans)
    if others:
        print(f"{path}: passed over, since of no scan that is evaluated: {in_short(others)}")
    return table


def _by_data_set(
    scores: Mapping[MappedScan, float], scans: Sequence[MappedScan]
) -> dict[str, np.ndarray]:
    """Return the scores of scans by their data set, in the order of `scans`."""
    found: dict[str, list[float]] = {}
    for scan in scans:
        found.setdefault(scan.data_set, []).append(scores[scan])
    return {name: np.array(values) for name, values in found.items()}


def _fingerprint(scans: Sequence[Evaluated], maps: Sequence[Path], source: Source) -> str:
    """Return the fingerprint of the maps and scores, wherever they lie."""
    digest = blake2b(digest_size=16)
    for one, path in zip(scans, maps, strict=True):
        digest.update(f"{one.scan.data_set}\0{one.scan.name}\0{file_fingerprint(path)}\0".encode())
    for path in filter(None, (source.scores, source.scan_scores)):
        digest.update(file_fingerprint(path).encode())
    return digest.hexdigest()


def _check_same(folder: Path, about: dict, made_from: str) -> None:
    """Raise an InputError unless a finished folder holds these maps."""
    manifest = read_manifest(folder)
    if manifest["settings"] != about or manifest["made_from"] != made_from:
        raise InputError(
            f"{folder}: expected these maps and scores, found others of a method of that name, or "
            f"other settings or slices; choose another --name, or remove {folder.parent}"
        )
    check(folder, "run python -m experiments.evaluate_maps again")


def _store(
    config: ConfigDict,
    folder: Path,
    scans: Sequence[Evaluated],
    maps: Sequence[Path],
    table: ScoreTable | None,
    source: Source,
) -> None:
    """Write heatmaps and scores of all slices; the folder is not finished by that."""
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted command left
    folder.mkdir(parents=True)
    faults, constant, scores = [], [], {}
    pairs, workers = list(zip(scans, maps, strict=True)), config.data.workers or os.cpu_count() or 1

    def on_slices(pair: tuple[Evaluated, Path]) -> tuple[Evaluated, np.ndarray, np.ndarray]:
        one, path = pair
        volume = read_evaluated(one)
        heatmaps, indices = read_on_slices(path, volume, one.store.manifest["settings"])
        given = np.zeros(0, np.float32)
        if table is not None and source.scores is not None:
            given = scores_of(table, one.scan, indices[one.slices], source.scores)
        return one, heatmaps[one.slices], given

    for one, raw, given in map_scans(on_slices, pairs, workers, "maps", faults):
        brains = one.store.brains[one.rows]
        if np.ptp(raw[brains]) == 0:
            constant.append(one.scan.name)
        name, total = one.scan.data_set, len(evaluated_rows(one.store))
        if name not in scores:
            scores[name] = np.zeros(total, np.float32)
            path, shape = folder / f"{name}.npy", (total, *raw.shape[1:])
            npy.open_memmap(path, mode="w+", dtype=np.float32, shape=shape).flush()
        neighbours = config.score.neighbours
        heatmaps = finish(raw, brains, neighbours) if source.postprocess else raw
        np.load(folder / f"{name}.npy", mmap_mode="r+", allow_pickle=False)[one.places] = heatmaps
        within = np.where(brains, heatmaps, 0).max((1, 2))
        scores[name][one.places] = within if table is None else given
    _refuse(faults, constant, scans, source.maps)
    write_arrays(folder / SCORES, scores)


def _refuse(faults: list[str], constant: list[str], scans: Sequence[Evaluated], maps: Path) -> None:
    """Raise the faults; say which maps are constant, and refuse them if all are."""
    if len(constant) == len(scans):
        faults.append(
            f"{maps}: expected maps that differ within the brain, found {len(constant)} that are "
            "constant there; nothing can be told from these, check how they were written"
        )
    if faults:
        raise InputError(*faults)
    if constant:
        message = f"warning: maps that are constant within the brain: {in_short(constant)}"
        tqdm.write(message, file=sys.stderr)


def finish(heatmaps: np.ndarray, brains: np.ndarray, neighbours: int) -> np.ndarray:
    """Post-process heatmaps [n, H, W] of a scan as ours (Section 4.5), in parts of one size.

    `brains` are [n, H, W] bool; `neighbours` as in `scoring.over_scan`.
    """
    starts = range(0, len(heatmaps), AT_ONCE)
    more = (0, -len(heatmaps) % AT_ONCE), (0, 0), (0, 0)
    heatmaps, brains = np.pad(heatmaps, more), np.pad(brains, more)
    parts = [postprocess(*(x[at : at + AT_ONCE] for x in (heatmaps, brains))) for at in starts]
    finished = np.concatenate(parts)[: len(heatmaps) - more[0][1]]
    return over_neighbours(finished, neighbours)
