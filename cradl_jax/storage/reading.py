"""Read files that may be anything: nothing hangs, executes, or takes more memory than the file."""

import errno
import json
import os
import stat
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cradl_jax.errors import InputError, cause

DAMAGED_ARRAYS = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, SyntaxError),
)
"""What zipfile and numpy raise on damaged files; NotImplementedError is a RuntimeError."""
MISSING = "no such path"


def kind_of(path: Path) -> str:
    """Say what lies at `path`: a file, a folder, a pipe or a device, or `MISSING`."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as fault:  # ValueError: a null byte in the name
        if not isinstance(fault, OSError) or fault.errno in (errno.ENOENT, errno.ENOTDIR):
            return MISSING
        return f"none ({os.strerror(fault.errno or 0).lower()})"
    if stat.S_ISREG(mode):
        return "a file"
    return "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"


def no_file(path: Path) -> str | None:
    """Say what lies at `path` if that is no file; only a file can be read to its end."""
    kind = kind_of(path)
    return None if kind == "a file" else "no such file" if kind == MISSING else kind


def is_entry(path: Path) -> bool:
    """Return whether a folder offers `path` to be read: no hidden file, folder, pipe or device.

    A link counts wherever it leads: one to a file that was not fetched is a fault, not an absence.
    """
    return path.name[0] != "." and (path.is_symlink() or not no_file(path))


def open_file(path: Path, expected: str) -> BinaryIO:
    """Open a file to read its bytes.

    Raises:
        InputError: `path` is no file that can be read. The message says what was `expected`.
    """
    found = no_file(path)
    if not found:
        try:
            return path.open("rb")
        except OSError as fault:
            found = f"one that cannot be read ({cause(fault)})"
    raise InputError(f"{path}: expected {expected}, found {found}; check the path")


def check_file(path: Path, expected: str) -> None:
    """Raise an InputError, which says what was `expected`, unless `path` is a file to read."""
    open_file(path, expected).close()


def read_json(path: Path) -> Any:
    """Read the content of a JSON file.

    Raises:
        OSError, ValueError: it cannot be read, is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_arrays(path: Path, expected: str, remedy: str) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file that `numpy.savez` wrote: numbers and text, not compressed.

    Raises:
        InputError: it is missing or damaged, or holds anything else, such as pickled objects. The
            message says what was `expected`, and the `remedy`.
    """
    try:
        found = no_file(path) or _compressed(path)
        if not found:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            if all(isinstance(array, np.ndarray) for array in arrays.values()):
                return arrays
            found = "members that are no arrays"
    except OSError as fault:
        found = f"one that cannot be read ({cause(fault)})"
    except DAMAGED_ARRAYS:
        found = "a damaged file, or one of another kind"
    raise InputError(f"{path}: expected {expected}, found {found}; {remedy}")


def _compressed(path: Path) -> str | None:
    """Say that a zip file has compressed members, which can be far larger than it, if it has."""
    with zipfile.ZipFile(path) as file:
        whole = all(info.compress_type == zipfile.ZIP_STORED for info in file.infolist())
    return None if whole else "compressed members"
