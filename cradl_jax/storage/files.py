"""Write whole files or none: aside first, then renamed, so that a reader never sees half of one."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from cradl_jax.errors import InputError, cause

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which becomes `path` when the block ends without an error.

    It has the same ending, and folders are made. What was at `path` stays until then, also if the
    process is killed or the machine loses power: what is left aside then is a hidden file
    `.partial_*`, which nothing reads. Processes that write one file at once do not meet.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".partial_{uuid4().hex[:8]}_{path.name}")
    try:
        with naming(path):
            yield aside
            with aside.open("r+b") as file:
                os.fsync(file.fileno())
            aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let errors of the system that name no file, as a full disk's do not, name this one."""
    try:
        yield
    except OSError as fault:
        fault.filename = fault.filename or str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8 with the line ends that it has."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, content: dict | list) -> None:
    """Write plain values as JSON."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays by name as .npz, not compressed."""
    import numpy as np  # commands answer --help without it

    with replacing(path) as aside:
        np.savez(aside, **arrays)


def require_writable(folder: Path, option: str) -> None:
    """Raise an InputError unless the folder that `option` names can be made and written to."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            pass
    except OSError as fault:
        raise InputError(
            f"{folder}: expected a folder that can be written to, found {cause(fault)}; name "
            f"another with {option}"
        ) from fault


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise an `InputError` unless the folder's disk has room for the bytes `needed` for `what`.

    The folder may still have to be made.
    """
    free = free_space(folder)
    if needed > free:
        raise InputError(
            f"{folder}: expected {in_words(needed)} of free disk space for {what}, found "
            f"{in_words(free)}; free some, then the same command continues, or choose another "
            "working directory"
        )


def free_space(folder: Path) -> int:
    """Return the free bytes of the folder's disk; the folder may still have to be made."""
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest above it that exists; a link may lead nowhere."""
    places = (folder, *folder.absolute().parents)
    return next(place for place in places if place.exists() or place.is_symlink())


def no_space(fault: BaseException) -> str | None:
    """Say that a disk was full or a quota used up; None of other faults."""
    if not isinstance(fault, OSError) or fault.errno not in FULL:
        return None
    return (
        f"{fault.filename or 'a file'}: could not be written ({fault.strerror}); what was there "
        "before is kept; free some space, then the same command continues"
    )


def in_words(size: float) -> str:
    """Return a number of bytes as people read it, to a tenth of a megabyte or gigabyte."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
