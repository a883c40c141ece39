"""List what is wrong with the files of a data set before anything is computed from them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from cradl_jax.data.scans.headers import Origin
from cradl_jax.data.scans.layouts import Scan, raise_faults
from cradl_jax.data.scans.volumes import Volume, read_mask, read_volume
from cradl_jax.data.scans.workers import map_scans
from cradl_jax.data.slices.preprocess import most_slices, slice_geometry
from cradl_jax.errors import InputError

LARGEST_ANOMALY = 0.6  # of the brain's voxels

Annotated = Literal["none", "some", "all"]
"""Which scans of a data set need a mask of their anomalies: none (a healthy data set, whose masks
must be empty), some (a scan without one is healthy) or all; of the latter two one mask at least
must not be empty."""


def missing_masks(scans: Sequence[Scan], annotated: Annotated) -> list[str]:
    """Return a fault for each mask that a data set needs and lacks."""
    without = [scan for scan in scans if scan.mask is None]
    if annotated == "all":
        return [
            f"{scan.image}: expected a mask of its anomalies, found none; add it (all 0 if the "
            "scan is healthy), or list the scans in a CSV file with an empty mask for healthy ones"
            for scan in without
        ]
    if annotated == "some" and len(without) == len(scans):
        return [
            f"{scans[0].image} and the other {len(scans) - 1} scans of its data set: expected a "
            "mask of the anomalies for some, found none; add the masks"
        ]
    return []


def empty_masks(scans: Sequence[Scan]) -> str:
    """Return the fault of an anomalous data set whose masks are all empty."""
    return (
        f"{scans[0].mask or scans[0].image} and the other {len(scans) - 1} scans of its data set: "
        "expected anomalous voxels in some mask, found none in any; check the masks"
    )


def most_slices_of(origin: Origin, settings: Mapping[str, Any]) -> int:
    """Return how many slices a file can have; an InputError that none is left names the file."""
    try:
        return most_slices(origin.ras_shape[2], origin.spacing_mm[2], **settings)
    except InputError as fault:
        raise InputError(f"{origin.path}: {fault}") from fault


def read_scan(
    scan: Scan, settings: Mapping[str, Any], annotated: Annotated | None = None
) -> tuple[Volume, np.ndarray | None]:
    """Read a scan that is to be sliced, and its mask [X, Y, Z] bool if it has one.

    The `settings` are those of `normalized_slices`. `annotated` "none" asks for an empty mask.

    Raises:
        InputError: If a file cannot be used, or too few slices are left. All faults are named.
    """
    volume, mask, faults = read_volume(scan.image), None, []
    try:
        slice_geometry(volume.data != 0, volume.spacing_mm, **settings)
    except InputError as fault:
        faults.append(f"{scan.image}: {fault}")
    try:
        mask = None if scan.mask is None else read_mask(scan.mask, volume.origin)
    except InputError as fault:
        faults += fault.args
    if annotated == "none" and mask is not None and mask.any():
        faults.append(
            f"{scan.mask}: expected no anomaly in a healthy data set, found "
            f"{np.count_nonzero(mask)} voxels; move the scan to an anomalous data set"
        )
    if annotated != "none" and mask is not None:
        share = np.count_nonzero(mask & (volume.data != 0)) / np.count_nonzero(volume.data)
        if share > LARGEST_ANOMALY:
            faults.append(
                f"{scan.mask}: expected the annotation of an anomaly, found a mask of {share:.0%} "
                "of the brain; if it is the mask of the brain, remove it or name another"
            )
    raise_faults(faults)
    return volume, mask


def scan_faults(
    scans: Sequence[Scan],
    settings: Mapping[str, Any],
    annotated: Annotated,
    workers: int,
    label: str,
) -> list[str]:
    """Read scans, and return every fault that `read_scan` finds in them."""
    faults: list[str] = []

    def check(scan: Scan) -> None:
        read_scan(scan, settings, annotated)

    list(map_scans(check, scans, workers, label, faults))
    return faults
