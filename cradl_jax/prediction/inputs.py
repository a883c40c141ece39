"""The scans that a user names, and the names that their results get."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cradl_jax.data.scans.contrasts import CONTRASTS, stated
from cradl_jax.data.scans.layouts import raise_faults, read_table, stem, volume_files
from cradl_jax.data.scans.volumes import ENDINGS
from cradl_jax.errors import InputError
from cradl_jax.storage.reading import kind_of, no_file, open_file

MAP, MASK, LABELS = "_anomaly.nii.gz", "_anomaly_mask.nii.gz", "_findings.nii.gz"
"""Endings of the volumes that are written of a scan, which are no scans themselves."""
FORBIDDEN = set('/\\:*?"<>|')  # in the names of files, on one system or another
LONGEST_NAME = 255 - len(f"partial_{MASK}")  # bytes


class InputScan(NamedTuple):
    """A scan and the name that its results get."""

    name: str
    image: Path


def find_scans(path: Path) -> list[InputScan]:
    """Find the scans at `path`: a file, a folder of volumes, or a CSV file that lists them.

    A CSV file has a column `image`, relative to it, and optionally `subject`, the scan's name.
    Otherwise a scan is named after its file. In a folder, the maps of other scans are passed
    over, and so are hidden files and folders; see `passed_over` for the others.

    Raises:
        InputError: there is no scan, or two have one name, or a name is not fit for a file.
    """
    kind = kind_of(path)
    if path.suffix.lower() == ".csv" and kind == "a file":
        found = _listed(path)
    elif kind == "a folder":
        found = [InputScan(stem(one), one) for one in _volumes(path)]
    else:
        found = [InputScan(stem(path), path)]
    if not (found and _volume_name(found[0].image)):
        _refuse_dicom(path)
    held = kind in ("a file", "a folder")
    if not (held and found):
        raise InputError(
            f"{path}: expected a scan, a folder of volumes ({', '.join(ENDINGS)}), or a CSV file "
            f"with a column image, found {'none in it' if held else kind}; check the path"
        )
    check_names(found)
    return found


def _volume_name(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def _refuse_dicom(path: Path) -> None:
    """Raise an InputError if a file, or one in a folder of any depth, is a DICOM file."""
    files = (one for one in (path, *path.rglob("*")) if not no_file(one))
    if any(_is_dicom(one) for one in files):
        raise InputError(
            f"{path}: expected NIfTI volumes, found DICOM files; convert them, e.g. with dcm2niix "
            f"-z y -o FOLDER {path if path.is_dir() else path.parent}"
        )


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() in (".dcm", ".ima"):
        return True
    with open_file(path, "a scan") as file:
        return file.read(132)[128:] == b"DICM"


def passed_over(path: Path) -> list[str]:
    """Return the names of the files and folders in the folder `path` that are no scans."""
    if not path.is_dir():
        return []
    scans = {one.stem if one.suffix.lower() == ".hdr" else one.name for one in _volumes(path)}
    return sorted(
        one.name
        for one in path.iterdir()
        if not one.name.startswith(".")
        and not one.name.endswith((MAP, MASK))
        and not {one.name, one.stem} & scans
    )


def _volumes(folder: Path) -> list[Path]:
    """Return the volumes of a folder but for the maps of other scans, sorted."""
    return [one for one in volume_files(folder.iterdir()) if not one.name.endswith((MAP, MASK))]


def _listed(path: Path) -> list[InputScan]:
    found, faults = [], []
    for line, row in read_table(path, delimiter=",", columns=("image",)):
        if row["image"]:
            image = path.parent / Path(row["image"]).expanduser()
            found.append(InputScan(row.get("subject") or stem(image), image))
        else:
            faults.append(f"{path}, line {line}: expected 'image', found none; fill it in")
    raise_faults(faults)
    return found


def check_contrast(scan: Path, contrast: str) -> None:
    """Raise an InputError if the name of a scan states another contrast than that of a run."""
    found = stated(stem(scan))
    if found in (None, contrast):
        return
    trained = f"it with a run trained on {found} (config.data.contrast)"
    remedy = trained if found in CONTRASTS else f"a {contrast} scan"
    raise InputError(
        f"{scan}: expected a scan of the contrast {contrast}, on which the run was trained, found "
        f"a name that states {found}; predict {remedy}, or rename the file if its name is wrong"
    )


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
