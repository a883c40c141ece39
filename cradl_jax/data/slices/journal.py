"""What is done of a slice store that is being built, see `building`.

<path>.partial/work/plan.json        the scans and settings, written when the arrays are there
<path>.partial/work/3-of-8.jsonl     a line a scan that shard 3 of 8 has sliced
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from cradl_jax.data.scans.fingerprint import PREPROCESSING, files_of
from cradl_jax.data.scans.layouts import Scan
from cradl_jax.data.slices.store import FORMAT, WORK

Line = dict[str, Any]
"""What is written of a sliced scan: `scan`, its number; `stamps`, see there; and more."""


class Shard(NamedTuple):
    """A process's share of the work: number 1, 2, ... of `count`."""

    number: int = 1
    count: int = 1

    def __str__(self) -> str:
        """Return the shard as in --shard=3/8."""
        return f"{self.number}/{self.count}"

    def share(self, n: int) -> range:
        """Return the numbers of its scans among n."""
        return range(self.number - 1, n, self.count)


def work(path: Path) -> Path:
    """Return the folder of plan and journals of the unfinished store of `path`."""
    return partial(path) / WORK


def partial(path: Path) -> Path:
    """Return the folder of the unfinished store of `path`."""
    return path.with_name(path.name + ".partial")


def plan(
    path: Path, scans: Sequence[Scan], settings: Mapping[str, Any], n_slices: Sequence[int] = ()
) -> list:
    """Return what an unfinished store is made from; the last entry is each scan's slices."""
    files = [[s.subject, s.split, *(relative(f, path) for f in (s.image, s.mask))] for s in scans]
    return [FORMAT, PREPROCESSING, dict(settings), files, list(n_slices)]


def read_plan(path: Path) -> list:
    """Read the plan of an unfinished store, empty if there is none."""
    try:
        return list(json.loads((work(path) / "plan.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return []


def shards_begun(path: Path) -> int:
    """Count the shards that slice for a store: 1 for a process alone, 0 if none has begun."""
    journals = work(path).glob("*-of-*.jsonl")
    return max((int(journal.stem.split("-")[-1]) for journal in journals), default=0)


def begin(path: Path, shard: Shard) -> Path:
    """Return the journal of a shard, made if it is not there."""
    journal = work(path) / f"{shard.number}-of-{shard.count}.jsonl"
    journal.touch()
    return journal


def write_lines(journal: Path, lines: Iterator[Line]) -> None:
    """Add lines to a journal, each on the disk before the next is asked for."""
    with journal.open("ab") as file:
        file.write(b"\n")  # a kill may have cut the last line
        for line in lines:
            file.write(json.dumps(with_checksum(line)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def lines(path: Path, scans: Sequence[Scan]) -> dict[int, Line]:
    """Read the lines of all journals by number, of scans whose files did not change since."""
    results = {}
    for journal in sorted(work(path).glob("*-of-*.jsonl")):
        for text in journal.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):  # cut by a kill
                line = without_checksum(json.loads(text))
                number = line["scan"]
                if number < len(scans) and line.get("stamps") == stamps(scans[number]):
                    results[number] = line
    return results


def sliced(path: Path, scans: Sequence[Scan], settings: Mapping[str, Any]) -> set[int]:
    """Return the numbers of the scans that are sliced in the unfinished store of `path`."""
    same = read_plan(path)[:-1] == plan(path, scans, settings)[:-1]
    return set(lines(path, scans)) if same else set()


def stamps(scan: Scan) -> list[list[int]]:
    """Return sizes and times of a scan's files; others mean that it has to be sliced again."""
    halves = [half for file in (scan.image, scan.mask) if file for half in files_of(file)]
    stats = [half.stat() for half in halves if half.exists()]
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats]


def relative(file: Path | None, store: Path) -> str | None:
    """Return a scan's file as seen from the store, so that both can be moved together."""
    return None if file is None else os.path.relpath(file.absolute(), store.resolve())


def with_checksum(line: Line) -> Line:
    """Return a line together with its own checksum, the SHA-256 of its JSON."""
    return {**line, "sha256": _checksum(line)}


def without_checksum(line: Line) -> Line:
    """Return the line that `with_checksum` was given.

    Raises:
        ValueError: it is another, or no mapping.
    """
    if not isinstance(line, dict):
        raise ValueError("no mapping")
    checksum = line.pop("sha256", None)
    if checksum != _checksum(line):
        raise ValueError("values other than those that were written")
    return line


def _checksum(line: Line) -> str:
    return hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()
