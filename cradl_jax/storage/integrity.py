"""Checksums of finished files, so that none changes unseen.

A finished folder holds `SHA256SUMS`, a line for each file, which `sha256sum -c SHA256SUMS` checks
as well. Its first line is the checksum of the others.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cradl_jax.errors import InputError
from cradl_jax.storage.files import write_text

SUMS = "SHA256SUMS"
HEAD = "# sha256 of the lines below: "
HALF_WRITTEN = ("partial_", ".partial_")  # see `files.replacing`
BLOCK = 1 << 20
Progress = Callable[[int], object]
"""Called with the number of bytes that were hashed since the last call."""


class Fault(NamedTuple):
    """A file that is not as it was written, and what was found instead."""

    path: Path
    found: str


def write_checksums(folder: Path, *parts: str, progress: Progress | None = None) -> None:
    """Write the checksums of finished files: of `parts` of the folder, or of all that lie in it.

    Parts are names of files, and of folders whose every file counts.
    """
    tops = [folder / part for part in parts] or list(folder.iterdir())
    inner = [path for top in tops if parts and top.is_dir() for path in top.rglob("*")]
    hashes = {
        path.relative_to(folder).as_posix(): sha256(path, progress)
        for path in [*tops, *inner]
        if path.is_file() and path.name != SUMS and not path.name.startswith(HALF_WRITTEN)
    }
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    write_text(folder / SUMS, HEAD + hashlib.sha256(lines.encode()).hexdigest() + "\n" + lines)


def is_complete(folder: Path) -> bool:
    """Return whether the folder is finished: its checksums are written last."""
    return (folder / SUMS).exists()


def sha256(path: Path, progress: Progress | None = None) -> str:
    """Return the hexadecimal SHA-256 of a file's content, read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            if progress is not None:
                progress(len(block))
    return digest.hexdigest()


def sums(folder: Path) -> dict[str, str]:
    """Read the checksums of a finished folder's files, by name.

    Raises:
        InputError: there are none, or they are damaged.
    """
    path = folder / SUMS
    try:
        head, _, lines = path.read_bytes().decode().partition("\n")
        if head != HEAD + hashlib.sha256(lines.encode()).hexdigest():
            raise ValueError("other lines than were written")
        pairs = [line.split("  ", 1) for line in lines.splitlines()]
        return {name: digest for digest, name in pairs}
    except (OSError, ValueError) as fault:
        raise InputError(
            f"{path}: expected the checksums of a finished folder, found {fault}; run the command "
            "that makes it again"
        ) from fault


def faults(
    folder: Path, names: Iterable[str] | None = None, progress: Progress | None = None
) -> Iterator[Fault]:
    """Yield those of a finished folder's files, or of `names`, that are not as they were written.

    Raises:
        InputError: its checksums are missing or damaged.
    """
    checksums = sums(folder)
    for name in checksums if names is None else names:
        path = folder / name
        try:
            if name not in checksums:
                yield Fault(path, "a file without a checksum")
            elif sha256(path, progress) != checksums[name]:
                yield Fault(path, "another content (SHA-256)")
        except OSError as fault:
            yield Fault(path, fault.strerror or str(fault))


def check(folder: Path, again: str, names: Iterable[str] | None = None) -> None:
    """Raise an InputError that names the first of `faults`, and what makes the folder `again`."""
    for path, found in faults(folder, names):
        raise InputError(
            f"{path}: expected the file as it was written, found {found}; bring it back from a "
            f"copy, or remove {folder} and {again}"
        )
