"""Hashes of finished files, so that none changes unseen.

A finished folder holds `SHA256SUMS`, a line a file, which `sha256sum -c SHA256SUMS` checks as well.
Its first line is the hash of the others. A JSON file that stands alone carries its own hash.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cradl_jax.errors import InputError
from cradl_jax.storage.files import write_text

SUMS = "SHA256SUMS"
OWN = "sha256"  # the field of a JSON file's own hash
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
    """Write the hashes of finished files: those of `parts` of the folder, or all that lie in it.

    Args:
        folder: where `SHA256SUMS` is written, and where names start.
        parts: names of files, and of folders whose every file counts.
        progress: see `Progress`.
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
    """Whether the folder is finished: its hashes are written last."""
    return (folder / SUMS).exists()


def sha256(path: Path, progress: Progress | None = None) -> str:
    """Hexadecimal SHA-256 of a file's content, read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            if progress is not None:
                progress(len(block))
    return digest.hexdigest()


def sums(folder: Path) -> dict[str, str]:
    """The hashes of a sealed folder's files by name.

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
            f"{path}: expected the hashes of a finished folder, found {fault}; run the command "
            "that makes it again"
        ) from fault


def faults(
    folder: Path, names: Iterable[str] | None = None, progress: Progress | None = None
) -> Iterator[Fault]:
    """The files of a sealed folder that are not as they were written.

    Args:
        folder: a sealed folder.
        names: of the files to check; None: all.
        progress: see `Progress`.

    Raises:
        InputError: its hashes are missing or damaged.
    """
    known = sums(folder)
    for name in known if names is None else names:
        path = folder / name
        try:
            if name not in known:
                yield Fault(path, "a file without a hash")
            elif sha256(path, progress) != known[name]:
                yield Fault(path, "another content (SHA-256)")
        except OSError as fault:
            yield Fault(path, fault.strerror or str(fault))


def check(folder: Path, again: str, names: Iterable[str] | None = None) -> None:
    """Raise an InputError that names the first file that is not as it was written.

    Args:
        folder: a sealed folder.
        again: what to do to have it made anew.
        names: see `faults`.
    """
    for path, found in faults(folder, names):
        raise InputError(
            f"{path}: expected the file as it was written, found {found}; bring it back from a "
            f"copy, or remove {folder} and {again}"
        )


def with_hash(content: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of a JSON file together with their own hash."""
    return {**content, OWN: _json_hash(content)}


def without_hash(content: Mapping[str, Any]) -> dict[str, Any]:
    """The values that `with_hash` was given.

    Raises:
        ValueError: they are others, or no mapping.
    """
    if not isinstance(content, Mapping):
        raise ValueError("no mapping")
    values = {name: value for name, value in content.items() if name != OWN}
    if content.get(OWN) != _json_hash(values):
        raise ValueError("values other than those that were written")
    return values


def _json_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 of values in one spelling: that of what is read back from a JSON file."""
    plain = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
