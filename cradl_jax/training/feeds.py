"""Which slices a chunk of training steps sees, and how they reach the devices.

A feed places slices once, and then gives the chunks of a plan: `data` [devices, M, H, W] and
`rows` [devices, S, n] of this process's devices, so that a device's share of a chunk's s-th batch
is `data[rows[s]]`. Where the slices fit, all of them lie on every device (`resident`), since a
global shuffle may hand any slice to any device, and nothing but rows comes from the host; otherwise
a chunk brings its own (`streamed`), of which a process reads only its devices' share.
Both give the same batches in the same order.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import psutil
from jax import Array

from cradl_jax.devices.parallel import Devices, copy_to_each, local, shard, split_batch

Plan = Sequence[np.ndarray]  # rows of the batches of each chunk, [S, B]
SHARE = 0.5  # of a device's free memory that slices may take; a step needs the rest
AHEAD = 2  # chunks read and on the devices while one is worked on


class Images(Protocol):
    """Slices [N, H, W], in memory or read when they are asked for."""

    def __len__(self) -> int:
        """Return N."""
        ...

    def __getitem__(self, chosen: Any, /) -> np.ndarray:
        """Return the chosen images [n, H, W]."""
        ...


class Feed(NamedTuple):
    """How slices reach the devices.

    Attributes:
        chunks: `(plan) -> iterator of (data, rows)`, see above.
        slice_bytes: that a chunk carries for each of its slices.
    """

    chunks: Callable[[Plan], Iterator[tuple[Array, np.ndarray]]]
    slice_bytes: int


@dataclass(frozen=True)
class Schedule(Sequence):
    """The rows of every batch of a training, a chunk of steps at a time: a plan.

    Each epoch draws a permutation of the slices from (seed, epoch) and leaves out what does not
    fill a batch, so that any chunk is known without those before it.

    Attributes:
        slices: number of training slices.
        batch_size: over all devices.
        epochs: in all.
        seed: of the permutations.
        length: steps of a chunk; an epoch's last one may be shorter.
        start: step to begin at; within a chunk the first one is shorter.
    """

    slices: int
    batch_size: int
    epochs: int
    seed: int
    length: int
    start: int = 0

    @property
    def steps(self) -> int:
        """Return the number of steps of an epoch."""
        return self.slices // self.batch_size

    @property
    def _chunks(self) -> int:
        return -(-self.steps // self.length)

    @property
    def _first(self) -> int:
        epoch, step = divmod(self.start, self.steps)
        return epoch * self._chunks + step // self.length

    def __len__(self) -> int:
        """Return the number of chunks."""
        return max(self._chunks * self.epochs - self._first, 0)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return the rows of a chunk's batches, [S, B]."""
        if not 0 <= index < len(self):
            raise IndexError(f"chunk {index} of {len(self)}")
        epoch, chunk = divmod(self._first + index, self._chunks)
        first = max(chunk * self.length, self.start - epoch * self.steps)
        batches = _order(self.slices, self.seed, epoch)[: self.steps * self.batch_size]
        return batches.reshape(self.steps, -1)[first : (chunk + 1) * self.length]


@functools.lru_cache(maxsize=2)
def _order(slices: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(slices)


def resident(images: Images, devices: Devices) -> Feed:
    """Place all of `images` [N, H, W] on every device."""
    data = copy_to_each(images[:], devices)
    return Feed(lambda plan: ((data, split_batch(batches, devices)) for batches in plan), 0)


def streamed(images: Images, devices: Devices) -> Feed:
    """Let each chunk bring its slices of `images` [N, H, W], which may be memory-mapped.

    Threads read chunks and put them on the devices while those before are worked on. A process
    reads only the slices of its own devices, each time that they are due.
    """
    import grain  # which takes a second

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


def room(devices: Devices) -> int:
    """Return the bytes that slices may take on each of this process's devices."""
    here = local(devices)
    stats = [device.memory_stats() for device in here]
    if all(stats):
        return int(SHARE * min(s["bytes_limit"] - s["bytes_in_use"] for s in stats))
    return int(SHARE * psutil.virtual_memory().available / len(here))
