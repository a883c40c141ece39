"""A digest of the scans and settings that a slice store was made from."""

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from cradl_jax.data.scans.layouts import Scan
from cradl_jax.errors import InputError

PREPROCESSING = 1
"""Raised whenever the same scans and settings give other slices than before."""
TAIL_BYTES = 1 << 16


def fingerprint(scans: Sequence[Scan], settings: Mapping[str, object]) -> str:
    """Hexadecimal digest of contents, subjects, splits and settings.

    It does not change when files are touched, moved or copied.

    Raises:
        InputError: If a file cannot be read.
    """
    contents = [(scan.subject, scan.split, *contents_of(scan)) for scan in scans]
    return of_contents(contents, settings)


def of_contents(
    contents: Sequence[tuple[str, str, str, str | None]], settings: Mapping[str, object]
) -> str:
    """The fingerprint of scans from their subject, split, and digests of image and mask."""
    facts = json.dumps([PREPROCESSING, dict(settings), contents], sort_keys=True)
    return blake2b(facts.encode(), digest_size=16).hexdigest()


def contents_of(scan: Scan) -> tuple[str, str | None]:
    """Digests of a scan's image and mask; see `content_of`, also for what is raised."""
    return content_of(scan.image), scan.mask and content_of(scan.mask)


def content_of(path: Path) -> str:
    """Digest of a file (and of its other half for .hdr/.img).

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
    """The file itself, or both halves of a pair .hdr/.img."""
    if path.suffix in (".hdr", ".img"):
        return [path.with_suffix(".hdr"), path.with_suffix(".img")]
    return [path]
