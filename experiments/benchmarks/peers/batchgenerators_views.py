"""Random views of slices by batchgenerators, one process a core."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from batchgenerators.augmentations.spatial_transformations import augment_spatial
from batchgenerators.transforms.abstract_transforms import Compose
from batchgenerators.transforms.color_transforms import BrightnessMultiplicativeTransform
from batchgenerators.transforms.noise_transforms import GaussianNoiseTransform
from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform

from experiments.benchmarks.timing import cores

images: np.ndarray  # of a worker


def transform(size: int, shift: float, scale: tuple[float, float], rotation: float, noise: float):
    """The transforms of `cradl_jax.augment.views`, in order, but for the clipping.

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
    """Processes that make views of slices [N, size, size] which they hold already."""

    def __init__(self, slices: np.ndarray, **settings):
        """`settings` are those of `transform`."""
        self.shares = np.array_split(np.arange(len(slices)), cores())
        self.transform = transform(slices.shape[1], **settings)
        self.pool = ProcessPoolExecutor(
            len(self.shares), get_context("spawn"), _hold, initargs=(slices,)
        )

    def views(self, count: int) -> list[np.ndarray]:
        """`count` views of every slice, [n, 1, size, size] for each share of them and view."""
        tasks = [(self.transform, share) for _ in range(count) for share in self.shares]
        return list(self.pool.map(_views, *zip(*tasks, strict=True)))

    def close(self) -> None:
        """End the processes."""
        self.pool.shutdown()


def rotated_and_scaled(slices: np.ndarray, angle: float, scale: float) -> np.ndarray:
    """Slices [N, H, W] at coordinates turned by `angle` and scaled by `scale` > 1."""
    found, _ = augment_spatial(
        slices[:, None],
        None,
        slices.shape[1:],
        do_elastic_deform=False,
        angle_x=(angle, angle),
        scale=(scale, scale),
        order_data=1,
        random_crop=False,
    )
    return found[:, 0]


def _hold(slices: np.ndarray) -> None:
    """Give a worker the slices, and random numbers of its own."""
    global images
    images = slices
    np.random.seed(os.getpid() % 2**32)  # noqa: NPY002


def _views(transform: Compose, rows: np.ndarray) -> np.ndarray:
    """A view of each of the worker's slices `rows`."""
    return np.clip(transform(data=images[rows][:, None])["data"], -1.5, 1.5)
