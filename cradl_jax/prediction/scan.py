"""From a scan's voxels to its slices' scores and an anomaly map on the same voxels.

The scan passes through the same functions as those that the model learned from:
`data.slices.preprocess`, then a scorer and the post-processing of Section 4.5.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from threadpoolctl import threadpool_limits

from cradl_jax.data.scans.volumes import Volume
from cradl_jax.data.slices.native import slice_centers_mm, to_volume
from cradl_jax.data.slices.preprocess import normalized_slices
from cradl_jax.devices.batches import in_batches
from cradl_jax.devices.parallel import Devices
from cradl_jax.errors import InputError
from cradl_jax.names import LOCAL
from cradl_jax.scoring import Batch, Scored, Scorer, over_scan, post_processed


class SliceScores(NamedTuple):
    """Scores and heatmaps of slices.

    Attributes:
        scores: [N], higher is more anomalous.
        heatmaps: [N, H, W] post-processed, not negative, never scaled.
    """

    scores: np.ndarray
    heatmaps: np.ndarray


ScoreSlices = Callable[[Batch[np.ndarray]], SliceScores]


class Prediction(NamedTuple):
    """Scores and maps of the n slices of a scan that show brain, from the lowest to the highest.

    Attributes:
        scores: [n], higher is more anomalous.
        maps: [n, size, size] post-processed heatmaps, not negative, never scaled.
        anomaly_map: [X, Y, Z] float32 along R, A and S: the maps on the scan's voxels, 0 outside
            the brain and beyond the slices.
        position: [n] height within the brain, 0 its lowest slice and 1 its highest.
        centers_mm: [n, 3] the slices' centers in scanner coordinates.
    """

    scores: np.ndarray
    maps: np.ndarray
    anomaly_map: np.ndarray
    position: np.ndarray
    centers_mm: np.ndarray

    @property
    def heights_mm(self) -> np.ndarray:
        """[n] height of the slices' centers in scanner coordinates."""
        return self.centers_mm[:, 2]


def predict_volume(
    score_slices: ScoreSlices, volume: Volume, slicing: Mapping[str, Any]
) -> Prediction:
    """Score every slice of a scan that shows brain.

    `slicing` is of `normalized_slices`.

    Raises:
        InputError: the scan has too few slices, none shows brain, or a score is not finite.
    """
    with threadpool_limits(1, user_api="blas"):  # as in `workers.map_scans`
        slices, *_ = normalized_slices(volume.data, None, volume.spacing_mm, **slicing)
    if not slices.brains.any():
        raise InputError(
            f"expected a brain that fills a pixel of {slices.geometry.pixel_mm:.3g} mm, found "
            "none; check the scan's voxel size and the brain extraction"
        )
    number = np.flatnonzero(slices.counted & slices.brains.any(axis=(1, 2)))
    position = slices.position[number]
    scores, maps = score_slices(Batch(slices.images[number], slices.brains[number], position))
    if not (np.isfinite(scores).all() and np.isfinite(maps).all()):
        raise InputError(
            "expected finite scores, found NaN or infinity; the scan is too far from the training "
            "scans for this density, so choose another score and heatmap"
        )
    stack = np.zeros_like(slices.images)
    stack[number] = np.maximum(maps, 0)
    native = to_volume(stack, slices.geometry, volume.data != 0)
    centers = slice_centers_mm(slices.geometry, volume.affine)[number]
    return Prediction(scores, maps, native, position, centers)


def slice_scorer(
    scorers: Sequence[tuple[Scorer, Any]],
    score: str,
    heatmap: str,
    batch_size: int,
    devices: Devices,
    neighbours: int = 0,
) -> ScoreSlices:
    """Return what computes one score and one post-processed heatmap of the slices of a scan.

    It compiles once, whatever the number of slices, and does no work for what was not asked for. A
    slice's result does not depend on the others, unless `scoring.over_scan` looks at all of them.

    Args:
        scorers: with their parameters.
        score: name of a slice score that one of them has.
        heatmap: name of a heatmap that one of them has.
        batch_size: slices scored at once, over all devices.
        devices: to run on.
        neighbours: see `scoring.over_scan`.
    """
    functions, params = zip(*scorers, strict=True)
    wanted = {score, heatmap} if score in LOCAL else {heatmap}  # such a score is its map's maximum

    def only(params: Sequence[Any], batch: Batch[jax.Array]) -> Scored:
        # Compiled, the others are left out.
        scored = [
            post_processed(function)(own, batch)
            for function, own in zip(functions, params, strict=True)
        ]
        scores = {name: x for one in scored for name, x in one.scores.items() if name == score}
        maps = {name: x for one in scored for name, x in one.heatmaps.items() if name in wanted}
        return Scored(scores, maps)

    def score_slices(batch: Batch[np.ndarray]) -> SliceScores:
        rows = np.arange(len(batch.images))
        parts = in_batches(only, params, batch, rows, batch_size, devices)
        scored = over_scan(jax.tree.map(lambda *x: np.concatenate(x), *parts), neighbours)
        return SliceScores(scored.scores[score], scored.heatmaps[heatmap])

    return score_slices
