"""The scans that a user names, and the names that their results get."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cradl_jax.data.scans.layouts import raise_faults, read_table, volume_files
from cradl_jax.data.scans.volumes import ENDINGS
from cradl_jax.errors import InputError
from cradl_jax.storage.reading import kind_of

MAP, MASK = "_anomaly.nii.gz", "_anomaly_mask.nii.gz"
"""Endings of the volumes that are written of a scan, which are no scans themselves."""
FORBIDDEN = set('/\\:*?"<>|')  # in the names of files, on one system or another
LONGEST_NAME = 255 - len(f"partial_{MASK}")  # bytes


class InputScan(NamedTuple):
    """A scan and the name that its results get."""

    name: str
    image: Path


def find_scans(path: Path) -> list[InputScan]:
    """Find the scans at `path`: a file, a folder of NIfTI files, or a CSV file that lists them.

    A CSV file has a column `image`, relative to it, and optionally `subject`, the scan's name.
    Otherwise a scan is named after its file. In a folder, the maps of other scans are passed
    over, and so are hidden files and folders.

    Raises:
        InputError: there is no scan, or two have one name, or a name is not fit for a file.
    """
    kind = kind_of(path)
    if path.suffix.lower() == ".csv" and kind == "a file":
        found = _listed(path)
    elif kind == "a folder":
        files = volume_files(path.iterdir())
        found = [InputScan(scan_name(f), f) for f in files if not f.name.endswith((MAP, MASK))]
    else:
        found = [InputScan(scan_name(path), path)]
    held = kind in ("a file", "a folder")
    if not (held and found):
        raise InputError(
            f"{path}: expected a scan, a folder of .nii or .nii.gz files, or a CSV file with a "
            f"column image, found {'none in it' if held else kind}; check the path"
        )
    check_names(found)
    return found


def scan_name(path: Path) -> str:
    """Return the name of a scan's file without its ending."""
    ending = next((e for e in ENDINGS if path.name.lower().endswith(e)), "")
    return path.name[: len(path.name) - len(ending)]


def _listed(path: Path) -> list[InputScan]:
    found, faults = [], []
    for line, row in read_table(path, delimiter=",", columns=("image",)):
        if row["image"]:
            image = path.parent / row["image"]
            found.append(InputScan(row.get("subject") or scan_name(image), image))
        else:
            faults.append(f"{path}, line {line}: expected 'image', found none; fill it in")
    raise_faults(faults)
    return found


def check_names(scans: Sequence[InputScan]) -> None:
    """Raise an InputError unless results of each scan get files of their own, in their folder."""
    faults, images = [], {}
    for name, image in scans:
        unfit = name[:1] in ("", ".") or not name.isprintable() or set(name) & FORBIDDEN
        if unfit or len(name.encode()) > LONGEST_NAME:
            faults.append(
                f"{image}: expected a name that is fit for a file, found {name!r}; rename the "
                f"scan, or its subject in the CSV file (up to {LONGEST_NAME} letters or digits fit)"
            )
        other = images.setdefault(name.casefold(), image)
        if other is not image:
            faults.append(
                f"{image}: expected a name of its own, found {name!r}, which {other} has too; "
                "rename one, or list the scans in a CSV file with a subject each"
            )
    raise_faults(faults)
