"""Writing a data set as a BIDS tree, which `cradl_jax.data.layouts` reads back.

root/participants.tsv                                            participant_id, split
root/sub-X/anat/sub-X_T2w.nii.gz                                 int16
root/derivatives/masks/sub-X/anat/sub-X_label-lesion_mask.nii.gz uint8
"""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

COMPRESSION = 1  # of gzip: fast


def scan_path(root: Path, subject: str) -> Path:
    """Where a subject's T2-weighted scan lies."""
    return root / f"sub-{subject}" / "anat" / f"sub-{subject}_T2w.nii.gz"


def mask_path(root: Path, subject: str) -> Path:
    """Where the mask of its anomalies lies."""
    folder = root / "derivatives" / "masks" / f"sub-{subject}" / "anat"
    return folder / f"sub-{subject}_label-lesion_mask.nii.gz"


def write_volume(path: Path, volume: np.ndarray, affine: np.ndarray) -> None:
    """Write one NIfTI volume aside and rename it, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    aside = path.with_name(f"partial_{path.name}")
    with nib.openers.Opener(aside, "wb", compresslevel=COMPRESSION) as file:
        image.to_stream(file)
    aside.replace(path)


def write_data_set(root: Path, name: str, splits: dict[str, str]) -> None:
    """Write the description and `participants.tsv`; `splits` maps each subject to its split."""
    root.mkdir(parents=True, exist_ok=True)
    description = {"Name": name, "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(description, indent=1) + "\n")
    rows = "".join(f"sub-{subject}\t{split}\n" for subject, split in splits.items())
    (root / "participants.tsv").write_text("participant_id\tsplit\n" + rows)
