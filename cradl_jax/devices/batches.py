"""A function over many rows, a batch at a time on all devices."""

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from typing import Any

import jax
import numpy as np
from jax import lax

from cradl_jax.devices.parallel import AXIS, Devices, over_devices, replicate, shard, split_batch


def in_batches(
    function: Callable,
    params: Any,
    arrays: Any,
    rows: np.ndarray,
    batch_size: int,
    devices: Devices,
) -> Iterator[Any]:
    """Run `function(params, batch)` over rows of `arrays`, a batch at a time on all devices.

    Each device works on its share, of which its process reads the slices, those of the next batch
    while the devices work; the results of all go to every process.

    Args:
        function: per device; its result has one row for each of the batch.
        params: the same for every batch.
        arrays: a tree of arrays with a row a slice, which may be memory-mapped.
        rows: which ones, and in which order.
        batch_size: over all devices; rounded up to a multiple of their number.
        devices: to run on, those of all processes that call this.

    Yields:
        The results for `batch_size` rows at a time. The last batch is padded and its result cut,
        so that `function` compiles once.
    """
    size = -(-batch_size // len(devices)) * len(devices)
    run = over_devices(_gathering(function), devices, (None, 0), None)
    params = replicate(params, devices)
    chosen = [rows[first : first + size] for first in range(0, len(rows), size)]

    def batch(rows: np.ndarray) -> Any:
        own = split_batch(np.resize(rows, (1, size)), devices)[:, 0]
        return jax.tree.map(lambda array: shard(array[own], devices), arrays)

    results = on_their_way(run(params, ready) for ready in one_ahead(map(batch, chosen)))
    for part, result in zip(chosen, results, strict=True):
        yield jax.tree.map(itemgetter(slice(len(part))), jax.device_get(result))


def on_their_way(results: Iterable[Any]) -> Iterator[Any]:
    """Yield trees of arrays, each when the next one is begun: it comes to the host meanwhile."""
    before = None
    for result in results:
        jax.tree.map(lambda array: array.copy_to_host_async(), result)
        if before is not None:
            yield before
        before = result
    if before is not None:
        yield before


def one_ahead(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the items, of which a thread makes the next while one is used."""
    items, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item


@functools.lru_cache
def _gathering(function: Callable) -> Callable:
    """Return `function` on every device, with the rows of all of them on each."""

    def gathering(params: Any, batch: Any) -> Any:
        return lax.all_gather(function(params, batch), AXIS, tiled=True)

    return gathering
