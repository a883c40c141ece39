"""The fingerprint of the scans and settings that a slice store was made from."""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from cradl_jax.data.scans.layouts import Scan
from cradl_jax.errors import InputError

PREPROCESSING = 2
"""Raised whenever the same scans and settings give other slices than before."""
TAIL_BYTES = 1 << 16


def fingerprint(scans: Sequence[Scan], settings: Mapping[str, Any]) -> str:
    """Return a hexadecimal hash of contents, subjects, splits and settings.

    It does not change when files are touched, moved or copied.

    Raises:
        InputError: If a file cannot be read.
    """
    return _combined(
        ((scan.subject, scan.split, *file_fingerprints(scan)) for scan in scans), settings
    )


def fingerprint_of_records(records: Sequence[Mapping], settings: Mapping[str, Any]) -> str:
    """Return the fingerprint of the scans that a store keeps these records of."""
    names = ("subject", "split", "image_fingerprint", "mask_fingerprint")
    return _combined((tuple(record[name] for name in names) for record in records), settings)


def _combined(scans: Iterable[tuple[str | None, ...]], settings: Mapping[str, Any]) -> str:
    facts = json.dumps([PREPROCESSING, dict(settings), list(scans)], sort_keys=True)
    return blake2b(facts.encode(), digest_size=16).hexdigest()


def file_fingerprints(scan: Scan) -> tuple[str, str | None]:
    """Return the fingerprints of a scan's image and mask, see `file_fingerprint`."""
    return file_fingerprint(scan.image), scan.mask and file_fingerprint(scan.mask)


def file_fingerprint(path: Path) -> str:
    """Return the hash of a file's content (with that of its other half for .hdr/.img).

    A gzip file ends in a checksum and the length of its content, so that its tail is enough.

    Raises:
        InputError: If it cannot be read.
    """
    digest = blake2b(digest_size=16)
    try:
        for half in files_of(path):
            size = half.stat().st_size
            with half.open("rb") as file:
                if half.suffix in (".gz", ".mgz"):
                    file.seek(max(0, size - TAIL_BYTES))
                while block := file.read(1 << 20):
                    digest.update(block)
            digest.update(str(size).encode())
    except OSError as fault:
        raise InputError(f"{path}: expected a file that can be read, found {fault}") from fault
    return digest.hexdigest()


def files_of(path: Path) -> list[Path]:
    """Return the file itself, or both halves of a pair .hdr/.img."""
    if path.suffix in (".hdr", ".img"):
        return [path.with_suffix(".hdr"), path.with_suffix(".img")]
    return [path]
