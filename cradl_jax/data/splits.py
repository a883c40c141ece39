"""Which subject belongs to which split."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from cradl_jax.data.layouts import SPLITS, Scan
from cradl_jax.errors import InputError


def assign_splits(
    scans: Sequence[Scan], counts: Mapping[str, int | float], seed: int
) -> list[Scan]:
    """Draw a split for every subject without one; all scans of a subject share its split.

    The draw depends on the seed and the subjects' names only, not on their order.

    Args:
        scans: Scans; a split that is already there is kept.
        counts: For each split its number of subjects, or its share of them between 0 and 1
            (rounded); one split may have -1 and takes the rest.
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
    names = [name for name in SPLITS for _ in range(sizes.get(name, 0))]
    splits |= dict(zip(subjects, names, strict=True))
    return [replace(scan, split=scan.split or splits[scan.subject]) for scan in scans]


def _sizes(counts: Mapping[str, int | float], n_subjects: int) -> dict[str, int]:
    """The number of subjects of each split."""
    for name, count in counts.items():
        share = isinstance(count, float) and 0 < count < 1
        if name not in SPLITS or not (share or (isinstance(count, int) and count >= -1)):
            raise InputError(
                f"splits: expected {', '.join(SPLITS)} with a number of subjects each, a share "
                f"between 0 and 1, or -1 for the rest, found {name}={count!r}; correct the split"
            )
    sizes = {
        name: round(count * n_subjects) if isinstance(count, float) else count
        for name, count in counts.items()
    }
    remaining = n_subjects - sum(size for size in sizes.values() if size != -1)
    takers = [name for name, size in sizes.items() if size == -1]
    if len(takers) > 1 or remaining < len(takers) or (remaining > 0 and not takers):
        raise InputError(
            f"splits: expected counts that use up the {n_subjects} subjects without a split, found "
            f"{dict(counts)}; change them, or give exactly one split -1, which takes the rest "
            "(at least one subject)"
        )
    return sizes | dict.fromkeys(takers, remaining)


def subject_faults(data_sets: Mapping[str, Sequence[Scan]]) -> list[str]:
    """What would leak between splits: an image listed twice, a subject in two splits.

    A subject may be in several data sets if it has the same split in each.
    """
    faults = []
    by_image, by_subject = defaultdict(list), defaultdict(list)
    for name, scans in data_sets.items():
        for scan in scans:
            by_image[scan.image.resolve()].append((name, scan))
            by_subject[scan.subject.removeprefix("sub-")].append((name, scan))
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
    for subject, listed in by_subject.items():
        faults += _split_faults(f"subject {subject}", listed)
    return faults


def _split_faults(what: str, listed: Iterable[tuple[str, Scan]]) -> list[str]:
    """The fault of what is in several splits, with one image as an example of each."""
    examples: dict[str | None, tuple[str, Path]] = {}
    for name, scan in listed:
        examples.setdefault(scan.split, (name, scan.image))
    if len(examples) == 1:
        return []
    found = ", ".join(f"{split} of '{name}' ({image})" for split, (name, image) in examples.items())
    return [
        f"{what}: expected in one split of all data sets, found in {found}; keep each subject in "
        "one split, or rename one if they are different people"
    ]
