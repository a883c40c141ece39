"""What tells one scan from another: its brightness, size, shape and grid, in plain values."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from cradl_jax.data.scans.volumes import Volume
from cradl_jax.data.slices.preprocess import moments, normalize
from cradl_jax.data.slices.store import DESCRIPTIONS
from cradl_jax.intensity import CLIP
from cradl_jax.storage.integrity import check

BINS = 60  # of the histogram, in [-CLIP, CLIP]
CELLS, CELL_MM = 12, 20.0  # the pattern: a cube of 12 x 12 x 12 cells around the brain's middle
DEPTHS_MM = (0, 4, 8, 12, 16, 24, 40)  # of the layers, below the brain's surface
LAYER_VOXEL_MM = 3.0  # voxels are skipped to about this size before depths are measured
TAILS = 0.005  # of the brain beyond its extent on either side, so that specks do not count


class Description(NamedTuple):
    """What is compared of one scan; plain values, for JSON.

    Attributes:
        histogram: [BINS] share of the brain's voxels by normalized intensity in [-CLIP, CLIP].
        pattern: [2 * CELLS**3] of each cell, the share that is brain, then the mean over the cell
            of the normalized intensity, 0 outside the brain.
        layers: [len(DEPTHS_MM) - 1] mean normalized intensity by depth below the surface.
        brain_ml: volume of the voxels that are not 0.
        extent_mm: width of the brain along R, A and S, without its outermost 0.5 % on each side.
        n_slices: axial layers of voxels with brain.
        spacing_mm: of the voxels, along R, A and S.
        oriented: whether the file says how the head lies, see `Origin.states_orientation`.
    """

    histogram: Sequence[float]
    pattern: Sequence[float]
    layers: Sequence[float]
    brain_ml: float
    extent_mm: Sequence[float]
    n_slices: int
    spacing_mm: Sequence[float]
    oriented: bool


def read_descriptions(store: Path) -> list[Description]:
    """Read the descriptions of the training scans of the slice store at this path.

    Raises:
        InputError: If the file was changed since it was written, or is missing.
    """
    check(store, "build the store again", (DESCRIPTIONS,))
    content = json.loads((store / DESCRIPTIONS).read_text(encoding="utf-8"))
    return [Description(**description) for description in content]


def describe(volume: Volume) -> Description:
    """Describe a scan, from `volumes.read_volume`; voxels that are not 0 count as brain."""
    spacing = volume.spacing_mm
    (box,) = ndimage.find_objects((volume.data != 0).view(np.uint8))
    data = volume.data[box]
    brain = data != 0
    score = normalize(data, brain, *moments(data, brain))
    counts, _ = np.histogram(score[brain], BINS, (-CLIP, CLIP))
    ends = [_ends(brain, axis, spacing[axis]) for axis in range(3)]
    pattern = _pattern(brain, score, spacing, [(low + high) / 2 for low, high in ends])
    voxels = int(counts.sum())
    return Description(
        histogram=(counts / voxels).round(5).tolist(),
        pattern=pattern.ravel().round(3).tolist(),
        layers=_layers(brain, score, spacing).round(4).tolist(),
        brain_ml=round(voxels * float(np.prod(spacing)) / 1000, 1),
        extent_mm=[round(float(high - low), 1) for low, high in ends],
        n_slices=int(np.count_nonzero(brain.any(axis=(0, 1)))),
        spacing_mm=[round(float(s), 4) for s in spacing],
        oriented=volume.origin.states_orientation,
    )


def _ends(brain: np.ndarray, axis: int, spacing: float) -> tuple[float, float]:
    """Find the brain's ends along an axis, without `TAILS`, in mm from the first edge."""
    others = tuple(other for other in range(3) if other != axis)
    share = np.concatenate([[0], np.cumsum(brain.sum(axis=others))]) / np.count_nonzero(brain)
    low, high = np.interp((TAILS, 1 - TAILS), share, np.arange(len(share)) * spacing)
    return low, high


def _pattern(
    brain: np.ndarray, score: np.ndarray, spacing: Sequence[float], middle: Sequence[float]
) -> np.ndarray:
    """Return [2, CELLS, CELLS, CELLS]: share of brain in each cell, mean of `score` over it."""
    shares = []
    for n, step, center in zip(brain.shape, spacing, middle, strict=True):
        voxel = np.arange(n + 1) * step
        cell = (np.arange(CELLS + 1) - CELLS / 2) * CELL_MM + center
        upper = np.minimum(cell[1:, None], voxel[None, 1:])
        lower = np.maximum(cell[:-1, None], voxel[None, :-1])
        shares.append((np.clip(upper - lower, 0, None) / CELL_MM).astype(np.float32))
    volumes = (brain.astype(np.float32), score)
    return np.stack([np.einsum("ax,by,cz,xyz", *shares, v, optimize=True) for v in volumes])


def _layers(brain: np.ndarray, score: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return [len(DEPTHS_MM) - 1]: mean of `score` by depth below the surface, 0 if missing."""
    every = [max(1, round(LAYER_VOXEL_MM / step)) for step in spacing]
    kept = tuple(slice(None, None, step) for step in every)
    inside, light = np.pad(brain[kept], 1), np.pad(score[kept], 1)
    sampling = np.multiply(spacing, every)
    depth = ndimage.distance_transform_edt(inside, sampling)[inside] - sampling.min() / 2
    sums, counts = (
        np.histogram(depth, DEPTHS_MM, weights=weights)[0] for weights in (light[inside], None)
    )
    return sums / np.maximum(counts, 1)
