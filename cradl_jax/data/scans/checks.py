"""Read every scan of a data set before anything is computed, and list what is wrong."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from cradl_jax.data.scans.layouts import Scan
from cradl_jax.data.scans.volumes import read_mask, read_volume
from cradl_jax.data.scans.workers import map_scans
from cradl_jax.data.slices.preprocess import slice_geometry
from cradl_jax.errors import InputError


def scan_faults(
    scans: Sequence[Scan],
    workers: int,
    *,
    annotated: Literal["none", "some", "all"],
    offset: int = 0,
    slice_spacing_mm: float | None = None,
    label: str = "checking",
    read: Sequence[Scan] | None = None,
) -> list[str]:
    """Every fault of the files of a data set.

    Args:
        scans: The scans of the data set.
        workers: Number of scans read at once.
        annotated: Which scans need a mask of their anomalies: none (a healthy data set, whose
            masks must be empty), some (a scan without one is healthy) or all; of the latter two
            one mask at least must not be empty.
        offset: See `slice_geometry`, as for the next one.
        slice_spacing_mm: Distance of neighboring slices in millimeters.
        label: Label of the progress bar.
        read: Those to read; None: all.
    """

    how = {"size": 1, "offset": offset, "slice_spacing_mm": slice_spacing_mm}

    def faults_of(scan: Scan) -> tuple[list[str], int]:
        return _faults(scan, annotated == "none", how)

    found = list(map_scans(faults_of, scans if read is None else read, workers, label))
    faults = [fault for of_scan, _ in found for fault in of_scan]
    without = [scan for scan in scans if scan.mask is None]
    if annotated == "all":
        faults += [
            f"{scan.image}: expected a mask of its anomalies, found none; add it (all 0 if the "
            "scan is healthy), or list the scans in a CSV file with an empty mask for healthy ones"
            for scan in without
        ]
    elif annotated == "some" and len(without) == len(scans):
        faults.append(
            f"{scans[0].image} and the other {len(scans) - 1} scans of its data set: expected a "
            "mask of the anomalies for some, found none; add the masks"
        )
    whole = read is None and annotated != "none"
    if whole and not faults and not any(marked for _, marked in found):
        faults.append(
            f"{scans[0].mask or scans[0].image} and the other {len(scans) - 1} scans of its data "
            "set: expected anomalous voxels in some mask, found none in any; check the masks"
        )
    return faults


def _faults(scan: Scan, healthy: bool, how: dict) -> tuple[list[str], int]:
    """What keeps an image and its mask from being sliced, and how many voxels the mask marks."""
    try:
        volume = read_volume(scan.image)
    except InputError as fault:
        return [str(fault)], 0
    faults = []
    try:
        slice_geometry(volume.data.shape, volume.spacing_mm, **how)
    except InputError as fault:
        faults.append(f"{scan.image}: {fault}")
    try:
        mask = None if scan.mask is None else read_mask(scan.mask, volume)
    except InputError as fault:
        return [*faults, str(fault)], 0
    marked = 0 if mask is None else np.count_nonzero(mask)
    if healthy and marked:
        faults.append(
            f"{scan.mask}: expected no anomaly in a healthy data set, found {marked} voxels; "
            "move the scan to an anomalous data set"
        )
    return faults, marked
