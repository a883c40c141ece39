"""Which subject belongs to which split: drawn by a seed or read from a list, and written down."""

import csv
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from cradl_jax.data.scans.layouts import HELD_OUT, SPLITS, Scan, read_table, split_fault
from cradl_jax.errors import InputError
from cradl_jax.storage.files import replacing
from cradl_jax.storage.reading import no_file

DRAWN = (HELD_OUT, *SPLITS)
"""In this order: who is held out does not depend on how the others are shared out."""
COLUMNS = ("subject", "split")
SHOWN = 5  # subjects that a message names


def assign_splits(
    scans: Sequence[Scan], counts: Mapping[str, int | float], seed: int
) -> list[Scan]:
    """Draw a split for every subject without one; all scans of a subject share its split.

    The draw depends on the seed and the subjects' names only, not on their order.

    Args:
        scans: Scans; a split that is already there is kept.
        counts: For `held_out` and each other split its number of subjects, or a share between 0
            and 1 (rounded): of all subjects, or for the others of those not held out. One may
            have -1 and takes the rest.
        seed: Seed of the draw.

    Raises:
        InputError: If the counts are invalid or do not add up to the subjects without a split.
    """
    splits = {scan.subject: scan.split for scan in scans if scan.split is not None}
    subjects = sorted(
        {scan.subject for scan in scans} - splits.keys(),
        key=lambda subject: blake2b(f"{seed}/{subject}".encode()).digest(),
    )
    sizes = _sizes(counts, len(subjects)) if subjects else {}
    names = [name for name in DRAWN for _ in range(sizes.get(name, 0))]
    splits |= dict(zip(subjects, names, strict=True))
    return [replace(scan, split=scan.split or splits[scan.subject]) for scan in scans]


def _sizes(counts: Mapping[str, int | float], n_subjects: int) -> dict[str, int]:
    """Return the number of subjects of each split; see `assign_splits`."""
    for name, count in counts.items():
        if name not in DRAWN or not _is_valid(count):
            raise InputError(
                f"splits: expected {', '.join(DRAWN)} with a number of subjects each, a share "
                f"between 0 and 1, or -1 for the rest, found {name}={count!r}; correct the split"
            )
    held_out = _size(counts.get(HELD_OUT, 0), n_subjects)
    shared = max(n_subjects - max(held_out, 0), 0)
    sizes = {name: _size(count, shared) for name, count in counts.items() if name != HELD_OUT}
    least = max(held_out, 0) + sum(abs(size) for size in sizes.values())  # one at least for -1
    if HELD_OUT in counts:
        sizes[HELD_OUT] = held_out
    takers = [name for name, size in sizes.items() if size == -1]
    rest = n_subjects - sum(size for size in sizes.values() if size != -1)
    if least > n_subjects:
        raise InputError(
            f"splits: expected at least {least} subjects for {dict(counts)}, found {n_subjects} "
            "without a split; add the others, or lower the counts"
        )
    if len(takers) > 1 or (rest > 0 and not takers):
        raise InputError(
            f"splits: expected counts that use up the {n_subjects} subjects without a split, found "
            f"{dict(counts)}; change them, or give exactly one split -1, which takes the rest"
        )
    return sizes | dict.fromkeys(takers, rest)


def _is_valid(count: object) -> bool:
    if not isinstance(count, int | float):
        return False
    return 0 < count < 1 or (count >= -1 and float(count).is_integer())


def _size(count: int | float, n_subjects: int) -> int:
    """Return a number of subjects, that of a share being rounded; -1 stays."""
    return round(count * n_subjects) if 0 < count < 1 else int(count)


def listed_splits(scans: Sequence[Scan], path: Path) -> tuple[list[Scan], list[str]]:
    """Give scans the splits that a CSV file with the columns subject,split lists.

    Splits that the scans have already do not count.

    Returns:
        The scans that the file lists, and what is wrong with it: subjects that it lacks, that the
        data set lacks or that it lists twice, and unknown splits.

    Raises:
        InputError: If the file is missing or no such table.
    """
    splits, faults = _read_splits(path)
    subjects = {bare(scan.subject) for scan in scans}
    if missing := subjects - splits.keys():
        faults.append(
            f"{path}: expected a row for each of the {len(subjects)} subjects of the data set, "
            f"found none for {_some(missing)}; add them, with the split {HELD_OUT} if they are "
            "not to be used"
        )
    if unknown := {s for s, split in splits.items() if split != HELD_OUT} - subjects:
        faults.append(
            f"{path}: expected subjects of the data set, found {_some(unknown)} that it lacks; "
            "remove their rows, or restore their scans"
        )
    listed = [scan for scan in scans if bare(scan.subject) in splits]
    return [replace(scan, split=splits[bare(scan.subject)]) for scan in listed], faults


def _read_splits(path: Path) -> tuple[dict[str, str], list[str]]:
    """Read the split of each subject from a CSV file, and what is wrong with its rows."""
    if found := no_file(path):
        raise InputError(
            f"{path}: expected a CSV file with the columns {','.join(COLUMNS)}, found {found}; "
            "check split_file in the config"
        )
    splits, faults = {}, []
    for line, row in read_table(path, delimiter=",", columns=COLUMNS):
        subject, split = bare(row["subject"]), row["split"]
        if split not in DRAWN:
            faults.append(split_fault(path, line, split, DRAWN))
        if subject in splits:
            faults.append(f"{path}, line {line}: {subject} was listed before; keep one row of it")
        splits.setdefault(subject, split)
    return splits, faults


def write_splits(path: Path, scans: Sequence[Scan]) -> None:
    """Write the list that `listed_splits` reads, sorted by subject."""
    rows = sorted({(scan.subject, scan.split) for scan in scans})
    with replacing(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])


def bare(subject: str) -> str:
    """Return a subject's name without the prefix of BIDS, which other layouts lack."""
    return subject.removeprefix("sub-")


def _some(subjects: Collection[str]) -> str:
    """Name how many subjects there are, and the first of them."""
    names = sorted(subjects)
    return f"{len(names)} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"


def source_faults(name: str, made: Sequence[Scan], source: str, scans: Sequence[Scan]) -> list[str]:
    """Find the subjects of a data set that were not held out of the one it was made from.

    `made` are the scans of the data set `name`; `scans` are all of `source`, those held out too.
    """
    learned = {bare(scan.subject) for scan in scans if scan.split != HELD_OUT}
    leaking = learned & {bare(scan.subject) for scan in made}
    if not leaking:
        return []
    example = next(scan.image for scan in made if bare(scan.subject) in leaking)
    return [
        f"data set '{name}' ({example}): expected subjects held out of '{source}', found "
        f"{_some(leaking)} that models learn from: it was made with another seed or list of "
        "scans; remove its folder and make it again with python -m experiments.synthesize"
    ]


def subject_faults(
    data_sets: Mapping[str, Sequence[Scan]], separate: Collection[str] = ()
) -> list[str]:
    """Find what would leak between splits: an image listed twice, a subject in two splits.

    A subject may be in several data sets if it has the same split in each. The subjects of the
    data sets `separate` are people whom no other data set has, whatever their names.
    """
    faults = []
    by_image, by_subject = defaultdict(list), defaultdict(list)
    for name, scans in data_sets.items():
        for scan in scans:
            by_image[scan.image.resolve()].append((name, scan))
            people = name if name in separate else None
            by_subject[people, bare(scan.subject)].append((name, scan))
    for image, listed in by_image.items():
        name, count = Counter(name for name, _ in listed).most_common(1)[0]
        subjects = sorted({scan.subject for _, scan in listed})
        if count > 1:
            faults.append(
                f"{image}: expected once in data set '{name}', found {count} times (as "
                f"{', '.join(subjects)}); remove the others"
            )
        elif len(subjects) > 1:
            faults += _split_faults(f"{image} ({', '.join(subjects)})", listed)
    for (_, subject), listed in by_subject.items():
        faults += _split_faults(f"subject {subject}", listed)
    return faults


def _split_faults(what: str, listed: Iterable[tuple[str, Scan]]) -> list[str]:
    """Return the fault of what is in several splits, with one image as an example of each."""
    examples: dict[str | None, tuple[str, Path]] = {}
    for name, scan in listed:
        examples.setdefault(scan.split, (name, scan.image))
    if len(examples) == 1:
        return []
    found = ", ".join(f"{split} of '{name}' ({image})" for split, (name, image) in examples.items())
    return [
        f"{what}: expected in one split of all data sets, found in {found}; keep each subject in "
        "one split, or, if they are different people, rename one or name its data set in "
        "--config.data.separate"
    ]
