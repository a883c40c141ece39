"""Connected components in 3-D of where a map lies above a threshold, and their mass.

Voxels are connected by a face, an edge or a corner. The mass of a component is the integral of the
map above the threshold over it (Bullmore et al., IEEE Trans. Med. Imaging 18, 1999): what is both
large and high has the most.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

CONNECTED = np.ones((3, 3, 3), bool)


class Components(NamedTuple):
    """The n components of a map above a threshold, the heaviest first.

    Attributes:
        labels: [X, Y, Z] int32, 0 outside and k in the k-th component.
        voxels: [n] number of voxels.
        masses: [n] integral of what the map has above the threshold, in its unit times ml.
        means: [n] mean of the map.
        peaks: [n] its highest value.
        peak_voxels: [n, 3] where that is.
        centers: [n, 3] center of the component, in voxels.
        extents: [n, 3] voxels from its first to its last along each axis.
    """

    labels: np.ndarray
    voxels: np.ndarray
    masses: np.ndarray
    means: np.ndarray
    peaks: np.ndarray
    peak_voxels: np.ndarray
    centers: np.ndarray
    extents: np.ndarray


def components(heat: np.ndarray, threshold: float, voxel_ml: float, least_ml: float) -> Components:
    """Find the components of `heat` [X, Y, Z] above a threshold, of `least_ml` or more."""
    labels, _ = ndimage.label(heat > threshold, CONNECTED)
    voxels = np.bincount(labels.ravel())
    number = 1 + np.flatnonzero(voxels[1:] * voxel_ml >= least_ml * (1 - 1e-9))
    masses = voxel_ml * np.asarray(ndimage.sum_labels(heat - threshold, labels, number))
    order = np.argsort(-masses, kind="stable")
    number = number[order]
    renumbered = np.zeros(len(voxels), np.int32)
    renumbered[number] = 1 + np.arange(len(number))
    boxes = ndimage.find_objects(labels)
    return Components(
        labels=renumbered[labels],
        voxels=voxels[number],
        masses=masses[order],
        means=np.asarray(ndimage.mean(heat, labels, number)),
        peaks=np.asarray(ndimage.maximum(heat, labels, number)),
        peak_voxels=_places(ndimage.maximum_position(heat, labels, number)),
        centers=_places(ndimage.center_of_mass(labels > 0, labels, number)),
        extents=_places([[side.stop - side.start for side in boxes[k - 1]] for k in number]),
    )


def masses(heat: np.ndarray, threshold: float, voxel_ml: float) -> np.ndarray:
    """Return the masses [n] of all components of `heat` [X, Y, Z] above a threshold."""
    labels, n = ndimage.label(heat > threshold, CONNECTED)
    return voxel_ml * np.asarray(ndimage.sum_labels(heat - threshold, labels, 1 + np.arange(n)))


def holds(heat: np.ndarray, threshold: float, voxels: int) -> bool:
    """Return whether `heat` [X, Y, Z] has a component of as many voxels above a threshold."""
    above = heat > threshold
    if np.count_nonzero(above) < voxels:
        return False
    labels, _ = ndimage.label(above, CONNECTED)
    return bool(np.bincount(labels.ravel())[1:].max() >= voxels)


def _places(places: list) -> np.ndarray:
    """Return places [n, 3], also where there is none."""
    return np.reshape(np.asarray(places, float), (-1, 3))
