"""What a map shows in a scan: its components above a threshold, against those of healthy scans."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from nibabel.affines import apply_affine

from cradl_jax.data.scans.volumes import Volume
from cradl_jax.evaluation.components import components
from cradl_jax.evaluation.masks import HealthyMap

LEAST_ML = 0.1
"""The smallest finding, unless another is asked for."""


class Finding(NamedTuple):
    """A connected part of a scan where the map lies above the threshold.

    Lengths and places are in mm, places in scanner coordinates (RAS+).

    Attributes:
        number: its value in the volume of findings; 1 has the largest mass.
        volume_ml: its volume.
        mean: mean of the map.
        peak: highest value of the map.
        mass: integral of what the map has above the threshold, in the unit of the map times ml.
        per_healthy_scan: findings of that mass or more in a healthy validation scan, on average;
            no more than `masks.KEPT` are counted.
        center_mm: [3] center.
        peak_mm: [3] where the map is highest.
        extent_mm: [3] from its first voxel to its last, along the scan's axes closest to R, A, S.
    """

    number: int
    volume_ml: float
    mean: float
    peak: float
    mass: float
    per_healthy_scan: float
    center_mm: tuple[float, float, float]
    peak_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]


class Findings(NamedTuple):
    """All findings of a scan.

    Attributes:
        each: the heaviest first.
        labels: [X, Y, Z] along R, A and S: the number of the finding, 0 outside.
    """

    each: Sequence[Finding]
    labels: np.ndarray


def find(
    heat: np.ndarray, volume: Volume, healthy: HealthyMap, mask: str, least_ml: float
) -> Findings:
    """Find what lies above a threshold.

    Args:
        heat: [X, Y, Z] the map on the voxels of `volume`, 0 outside the brain.
        volume: the scan.
        healthy: the map on healthy validation scans.
        mask: the threshold, one of `masks.MASKS`.
        least_ml: volume of the smallest finding.
    """
    voxel_ml = float(np.prod(volume.spacing_mm)) / 1000
    above = healthy.masks[mask]
    found = components(heat, above.threshold, voxel_ml, least_ml)
    known = np.asarray(above.masses)
    more = (known >= found.masses[:, None]).sum(1) / healthy.n_scans
    columns = (
        found.voxels * voxel_ml,
        found.means,
        found.peaks,
        found.masses,
        more,
        apply_affine(volume.affine, found.centers),
        apply_affine(volume.affine, found.peak_voxels),
        found.extents * volume.spacing_mm,
    )
    each = [Finding(k, *row) for k, row in enumerate(zip(*map(_plain, columns), strict=True), 1)]
    return Findings(each, found.labels)


def _plain(values: np.ndarray) -> list:
    """Return values [n] or [n, 3] as floats or tuples of them."""
    return [tuple(row) if isinstance(row, list) else row for row in values.tolist()]
