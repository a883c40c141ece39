"""Writing a data set as a BIDS tree, which `cradl_jax.data.scans.layouts` reads back.

root/participants.tsv                                            participant_id, split
root/sub-X/anat/sub-X_T2w.nii.gz                                 int16
root/derivatives/masks/sub-X/anat/sub-X_label-lesion_mask.nii.gz uint8
"""

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from cradl_jax.data.scans.volumes import write_image
from cradl_jax.storage.files import write_json, write_text


def scan_path(root: Path, subject: str) -> Path:
    """Return where a subject's T2-weighted scan lies."""
    return root / f"sub-{subject}" / "anat" / f"sub-{subject}_T2w.nii.gz"


def mask_path(root: Path, subject: str) -> Path:
    """Return where the mask of its anomalies lies."""
    folder = root / "derivatives" / "masks" / f"sub-{subject}" / "anat"
    return folder / f"sub-{subject}_label-lesion_mask.nii.gz"


def write_volume(
    path: Path, volume: np.ndarray, affine: np.ndarray, space: str | None = None
) -> None:
    """Write one NIfTI volume; `space`, if known, is nibabel's name of what `affine` leads to."""
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    if space is not None:
        image.set_qform(affine, space)
        image.set_sform(affine, space)
    write_image(path, image)


def write_data_set(root: Path, name: str, splits: Mapping[str, str | None]) -> None:
    """Write the description and `participants.tsv`; `splits` maps each subject to its split."""
    description = {"Name": name, "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    write_json(root / "dataset_description.json", description)
    write_participants(root, {f"sub-{subject}": split for subject, split in splits.items()})


def write_participants(root: Path, splits: Mapping[str, str | None]) -> None:
    """Write `participants.tsv`; `splits` maps each `sub-X` to its split."""
    rows = "".join(f"{participant}\t{split}\n" for participant, split in splits.items())
    write_text(root / "participants.tsv", "participant_id\tsplit\n" + rows)
