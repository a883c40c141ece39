"""Slices that do not fit on a device stream from disk, read ahead by grain's threads."""

from collections.abc import Iterator

import grain
import numpy as np
from jax import Array

from cradl_jax.devices.parallel import Devices, shard, split_batch
from cradl_jax.training.feeds import Feed, Plan

AHEAD = 2  # chunks read and on the devices while one is worked on


def streamed(images: np.ndarray, devices: Devices) -> Feed:
    """Each chunk brings its slices of `images` [N, H, W], which may be memory-mapped.

    Chunks are read and put on the devices while those before are worked on. A process reads only
    the slices of its own devices, each time that they are due.
    """

    def chunk(batches: np.ndarray) -> tuple[Array, np.ndarray]:
        parts = split_batch(batches, devices)
        rows = np.arange(parts[0].size).reshape(parts[0].shape)
        data = shard([images[part.reshape(-1)] for part in parts], devices)
        return data, np.tile(rows, (len(parts), 1, 1))

    def chunks(plan: Plan) -> Iterator[tuple[Array, np.ndarray]]:
        options = grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD)
        read = iter(grain.MapDataset.source(plan).map(chunk).to_iter_dataset(options))
        try:
            yield from read
        finally:
            read.close()

    return Feed(chunks, images[:1].nbytes)
