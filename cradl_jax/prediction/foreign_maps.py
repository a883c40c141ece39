"""Anomaly maps and scores that any tool made: find them, and bring them onto the slices.

A map lies on the grid of its scan and is named after it, `<name>_anomaly.nii.gz` as predict writes
it, or `<name>.nii.gz`. Scores of slices and of scans are rows of CSV files. Higher is more
anomalous.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from cradl_jax.data.scans.layouts import raise_faults, read_table, stem, volume_files
from cradl_jax.data.scans.volumes import Volume, read_like
from cradl_jax.data.slices.native import slice_centers_mm
from cradl_jax.data.slices.preprocess import slice_volume
from cradl_jax.errors import InputError
from cradl_jax.prediction.files import file_indices
from cradl_jax.prediction.inputs import MAP, MASK

ENDING = MAP.removesuffix(".nii.gz")
COLUMNS = ("scan", "index", "score")
SCAN_COLUMNS = ("scan", "score")
DATA_SET = "data_set"
"""Column of a table of scores that is needed where scans of two data sets have one name."""
ROUNDING = 1e-6  # of the largest value: a negative one nearer to 0 is 0
SHOWN = 5  # names in a message


Number = TypeVar("Number", int, float)


class MappedScan(NamedTuple):
    """A scan that a map is expected of.

    Attributes:
        data_set: its name.
        name: of the scan, which no other of its data set has.
        image: its file.
    """

    data_set: str
    name: str
    image: Path


ScoreTable = Mapping[MappedScan, Mapping[int, float]]
"""Slice scores by scan and number of the slice in the scan's file."""


def scan_names(subjects: Sequence[str], images: Sequence[Path]) -> list[str]:
    """Return the names of a data set's scans: of their files, without ending.

    Where two files have one name, scans are named after their subjects, or after both.

    Raises:
        InputError: two scans of one subject have files of one name.
    """
    stems = [stem(image) for image in images]
    both = [f"{subject}_{name}" for subject, name in zip(subjects, stems, strict=True)]
    for names in (stems, list(subjects), both):
        if len(set(names)) == len(names):
            return names
    twice = next(name for name, count in Counter(both).items() if count > 1)
    raise InputError(
        f"{twice}: expected scans that differ in subject or in the name of their file, found two "
        "that do not; maps are found by these names, so rename one"
    )


def find_maps(folder: Path, scans: Sequence[MappedScan]) -> tuple[list[Path], list[str]]:
    """Find the map of each scan, in `folder` or in its folder named after the scan's data set.

    Returns:
        The maps, and the names of volumes there that are of none of the scans.

    Raises:
        InputError: it is no folder, or scans have no map, or two, or are their own. All are named.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of anomaly maps, found none; check the path")
    named: dict[str, dict[str, MappedScan]] = defaultdict(dict)
    for scan in scans:
        named[scan.name][scan.data_set] = scan
    found: dict[MappedScan, list[Path]] = defaultdict(list)
    others, faults, unclear = [], [], set()
    for path, data_sets in _volumes(folder, scans):
        name = stem(path)
        owners = named.get(name) or named.get(name.removesuffix(ENDING), {})
        fitting = [scan for scan in owners.values() if scan.data_set in data_sets]
        if len(fitting) == 1:
            found[fitting[0]].append(path)
        elif fitting:
            unclear.update(fitting)
            places = (str(folder / scan.data_set) for scan in fitting)
            faults.append(
                f"{path}: expected the name of one scan, found that of scans of several data sets; "
                f"put the maps of each into a folder of its own: {', '.join(places)}"
            )
        else:
            others.append(path.relative_to(folder).as_posix())
    for scan in scans:
        if not found[scan] and scan not in unclear:
            faults.append(
                f"{scan.image}: expected its map {scan.name}{MAP} (or {scan.name}.nii.gz) in "
                f"{folder} or its folder {scan.data_set}, found none; add it"
            )
        elif scan.image.resolve() in map(Path.resolve, found[scan]):
            faults.append(
                f"{scan.image}: expected a map beside the scan, found the scan itself; give the "
                "folder of the maps"
            )
        elif len(found[scan]) > 1:
            faults.append(
                f"{scan.image}: expected one map, found {len(found[scan])} "
                f"({', '.join(map(str, found[scan]))}); remove those that are not meant"
            )
    if faults and others:
        faults.append(f"{folder}: found volumes that are of none of the scans: {in_short(others)}")
    raise_faults(faults)
    return [found[scan][0] for scan in scans], others


def in_short(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many there are."""
    return f"{', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''} ({len(names)})"


def _volumes(
    folder: Path, scans: Iterable[MappedScan]
) -> Iterator[tuple[Path, Sequence[str] | set[str]]]:
    """Yield the volumes, but for predict's masks, with the data sets that each may be of."""
    data_sets = {scan.data_set for scan in scans}
    own = {name: folder / name for name in sorted(data_sets) if (folder / name).is_dir()}
    for place, fitting in [(folder, data_sets), *((path, [name]) for name, path in own.items())]:
        for path in volume_files(place.iterdir()):
            if not path.name.endswith(MASK):
                yield path, fitting


def read_on_slices(
    path: Path, volume: Volume, slicing: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Bring a scan's map onto the scan's slices as its image is: a pixel is the mean over its area.

    What lies outside the brain does not count.

    Args:
        path: of the map.
        volume: the scan.
        slicing: how it is sliced, see `normalized_slices`.

    Returns:
        The map [n, size, size] float32 on each slice of the stack, 0 outside the brain, and the
        slices' numbers [n] in the scan's file, see `files.file_indices`.

    Raises:
        InputError: the map is damaged, on another grid, or has negative values or others that are
            not finite.
    """
    brain = volume.data != 0
    values = np.where(brain, read_like(path, volume.origin, "map"), 0)
    least = values.min()
    if least < -ROUNDING * np.abs(values).max():
        raise InputError(
            f"{path}: expected values from 0 on, higher ones more anomalous, found "
            f"{np.count_nonzero(values < 0)} negative ones in the brain, down to {least:g}; 0 is "
            "the value outside the brain, so take absolute values, or add a constant to all maps"
        )
    values = np.maximum(values, 0)
    slices = slice_volume(values, brain, None, volume.spacing_mm, **slicing)
    centers = slice_centers_mm(slices.geometry, volume.affine)
    return slices.images, file_indices(volume.origin, centers)


def read_scores(path: Path, scans: Sequence[MappedScan]) -> tuple[ScoreTable, list[str]]:
    """Read slice scores: columns scan, index and score, and data_set where names need it.

    Returns:
        The scores, and the names in the table that are of none of the scans.

    Raises:
        InputError: it is no such table, a cell is no number, or a slice has two scores that differ.
            All are named.
    """
    table: dict[MappedScan, dict[int, float]] = {scan: {} for scan in scans}
    rows, others, faults = _rows_of(path, scans, COLUMNS)
    for place, scan, row in rows:
        index, score = _number(int, row["index"]), _number(float, row["score"])
        if index is None or score is None:
            faults.append(
                f"{place}: expected a whole number for index and a finite one for score, found "
                f"{row['index']!r} and {row['score']!r}; correct them"
            )
        elif table[scan].setdefault(index, score) != score:
            faults.append(
                f"{place}: expected one score of slice {index} of {scan.name}, found a second; "
                "remove one"
            )
    raise_faults(faults)
    return table, others


def read_scan_scores(
    path: Path, scans: Sequence[MappedScan]
) -> tuple[dict[MappedScan, float], list[str]]:
    """Read scores of whole scans: columns scan and score, and data_set where names need it.

    Returns:
        The scores, and the names in the table that are of none of the scans.

    Raises:
        InputError: it is no such table, a cell is no number, or a scan has no score, or two that
            differ. All are named.
    """
    table: dict[MappedScan, float] = {}
    rows, others, faults = _rows_of(path, scans, SCAN_COLUMNS)
    for place, scan, row in rows:
        score = _number(float, row["score"])
        if score is None:
            faults.append(
                f"{place}: expected a finite number for score, found {row['score']!r}; correct it"
            )
        elif table.setdefault(scan, score) != score:
            faults.append(f"{place}: expected one score of {scan.name}, found a second; remove one")
    missing = [scan.name for scan in scans if scan not in table]
    if missing and not faults:
        faults.append(
            f"{path}: expected a score of each validation and test scan, found none of "
            f"{in_short(missing)}; add them"
            + (f", or correct names that are of no such scan: {in_short(others)}" if others else "")
        )
    raise_faults(faults)
    return table, others


def _rows_of(
    path: Path, scans: Sequence[MappedScan], columns: tuple[str, ...]
) -> tuple[list[tuple[str, MappedScan, Mapping[str, str]]], list[str], list[str]]:
    """Find the scan that each row of a table is of.

    Returns:
        Place, scan and cells of each row, the names that are of none of the scans, and the faults
        of rows whose name is of several scans.
    """
    named: dict[str, list[MappedScan]] = defaultdict(list)
    for scan in scans:
        named[scan.name].append(scan)
    rows, others, faults = [], {}, []
    for line, row in read_table(path, delimiter=",", columns=columns):
        place, name, data_set = f"{path}, line {line}", row["scan"], row.get(DATA_SET)
        fitting = [one for one in named.get(name, ()) if data_set in (None, "", one.data_set)]
        if len(fitting) > 1:
            faults.append(
                f"{place}: expected the name of one scan, found {name!r}, which several data sets "
                f"have; add a column {DATA_SET}"
            )
        elif fitting:
            rows.append((place, fitting[0], row))
        else:
            others[name] = None
    return rows, list(others), faults


def _number(kind: Callable[[str], Number], cell: str) -> Number | None:
    """Return the finite number in a cell; None if it holds none."""
    try:
        value = kind(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def scores_of(table: ScoreTable, scan: MappedScan, indices: np.ndarray, path: Path) -> np.ndarray:
    """Return the scores [n] float32 of a scan's slices, by their numbers in its file.

    Raises:
        InputError: the table, read from `path`, lacks some.
    """
    missing = [str(index) for index in indices if index not in table[scan]]
    if missing:
        raise InputError(
            f"{path}: expected a score of each slice of {scan.name} that shows brain, found none "
            f"of {in_short(missing)}; add them"
        )
    return np.array([table[scan][index] for index in indices], np.float32)
