"""Random views of slices by batchgenerators, one process per core."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from batchgenerators.augmentations.spatial_transformations import augment_spatial
from batchgenerators.transforms.abstract_transforms import Compose
from batchgenerators.transforms.color_transforms import BrightnessMultiplicativeTransform
from batchgenerators.transforms.noise_transforms import GaussianNoiseTransform
from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform

from experiments.benchmarks.timing import cores

images: np.ndarray  # the slices that a worker process holds


def transform(
    size: int, shift: float, scale: tuple[float, float], rotation: float, noise: float
) -> Compose:
    """Return the transforms of `cradl_jax.augment.views` in order, except for the clipping.

    batchgenerators scales coordinates, so that less than 1 magnifies.
    """
    spatial = SpatialTransform(
        (size, size),
        patch_center_dist_from_border=(size - 1) / 2 - shift * size,
        do_elastic_deform=False,
        angle_x=(-rotation, rotation),
        scale=(1 / scale[1], 1 / scale[0]),
        border_mode_data="nearest",
        order_data=1,
        random_crop=True,
    )
    return Compose(
        [
            MirrorTransform(axes=(1,)),
            spatial,
            BrightnessMultiplicativeTransform((0.95, 1.1), per_channel=False),
            GaussianNoiseTransform((0, noise)),
        ]
    )


class Workers:
    """Processes that hold slices [N, size, size] and make views of them."""

    def __init__(self, slices: np.ndarray, **settings: Any):
        """Start the processes; `settings` are those of `transform`."""
        self.shares = np.array_split(np.arange(len(slices)), cores())
        self.transform = transform(slices.shape[1], **settings)
        self.pool = ProcessPoolExecutor(
            len(self.shares), get_context("spawn"), _hold, initargs=(slices,)
        )

    def views(self, count: int) -> list[np.ndarray]:
        """Make `count` views of every slice, [n, 1, size, size] for each worker and view."""
        tasks = [(self.transform, share) for _ in range(count) for share in self.shares]
        return list(self.pool.map(_views, *zip(*tasks, strict=True)))

    def close(self) -> None:
        """End the processes."""
        self.pool.shutdown()


def rotated_and_scaled(slices: np.ndarray, angle: float, scale: float) -> np.ndarray:
    """Resample slices [N, H, W] at coordinates rotated by `angle` and scaled by `scale` > 1."""
    resampled, _ = augment_spatial(
        slices[:, None],
        None,
        slices.shape[1:],
        do_elastic_deform=False,
        angle_x=(angle, angle),
        scale=(scale, scale),
        order_data=1,
        random_crop=False,
    )
    return resampled[:, 0]


def _hold(slices: np.ndarray) -> None:
    """Store the slices in a worker, and seed its random numbers."""
    global images
    images = slices
    np.random.seed(os.getpid() % 2**32)  # noqa: NPY002


def _views(transform: Compose, rows: np.ndarray) -> np.ndarray:
    """Make a view of each of the slices `rows` of this worker."""
    return np.clip(transform(data=images[rows][:, None])["data"], -1.5, 1.5)
