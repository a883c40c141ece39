"""The one file that names pmap: pure per-device functions, run on one device or on many.

A per-device function sees its share of a batch and the axis `AXIS`, over which it gathers and
averages. One device takes the same path as eight, and as those of several processes: each process
gives its own devices their shares, in the order of `devices`, which is the same in all of them.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cradl_jax.errors import InputError

AXIS = "devices"
Devices = Sequence[jax.Device]


def over_devices(
    function: Callable, devices: Devices, in_axes: tuple[int | None, ...], out_axes: int | None
) -> Callable:
    """Run `function` on every device: axis 0 is split, axis None is the same on all.

    A result with axis None must have been synchronised over `AXIS` by `function`. The same
    arguments give the same compiled function.
    """
    return _compiled(function, tuple(devices), in_axes, out_axes)


@functools.lru_cache
def _compiled(function, devices, in_axes, out_axes):
    return jax.pmap(function, axis_name=AXIS, devices=devices, in_axes=in_axes, out_axes=out_axes)


def local(devices: Devices) -> Devices:
    """Return those of `devices` that belong to this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def replicate(tree, devices: Devices):
    """Copy a tree to every device, placed as `over_devices` returns what has axis None."""
    return jax.device_put(tree, _sharding(local(devices), PartitionSpec()))


def across_processes(tree):
    """Join what is the same on every device of each process into arrays of all processes."""
    if jax.process_count() == 1:
        return tree
    sharding = _sharding(jax.devices(), PartitionSpec())

    def whole(array: Array) -> Array:
        copies = [shard.data for shard in array.addressable_shards]
        return jax.make_array_from_single_device_arrays(array.shape, sharding, copies)

    return jax.tree.map(whole, tree)


def copy_to_each(array: np.ndarray, devices: Devices) -> Array:
    """Copy an array [...] to each device of this process: [devices, ...], a row on each."""
    return shard([array] * len(local(devices)), devices)


def shard(parts: Sequence[np.ndarray], devices: Devices) -> Array:
    """Put an array [...] for each device of this process there: [devices, ...], a row on each."""
    here = local(devices)
    rows = [jax.device_put(part[None], device) for part, device in zip(parts, here, strict=True)]
    shape = (len(here), *rows[0].shape[1:])
    return jax.make_array_from_single_device_arrays(
        shape, _sharding(here, PartitionSpec(AXIS)), rows
    )


def _sharding(devices: Devices, spec: PartitionSpec) -> NamedSharding:
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), spec)


def split_batch(batches: np.ndarray, devices: Devices) -> np.ndarray:
    """Split global batches [S, B, ...] for this process's devices: [devices, S, n, ...].

    n is B over the number of all devices; the parts lie in the order of the devices.

    Raises:
        InputError: B does not divide by the number of devices.
    """
    steps, batch, *rest = batches.shape
    parts = batches.reshape(steps, len(devices), share(batch, devices), *rest)
    own = [device.process_index == jax.process_index() for device in devices]
    return np.moveaxis(parts[:, own], 1, 0)


def share(batch: int, devices: Devices) -> int:
    """Return how much of a batch each device has.

    Raises:
        InputError: it does not divide by the number of devices.
    """
    count = len(devices)
    if batch % count:
        raise InputError(
            f"batch size {batch} does not divide over {count} devices; "
            f"choose a multiple of {count}, e.g. {max(1, batch // count) * count}"
        )
    return batch // count


def any_process(*facts: bool) -> list[bool]:
    """Tell all processes, at the same time, whether each fact holds in any of them."""
    if jax.process_count() == 1:
        return list(facts)
    here = np.tile(np.array(facts), (jax.local_device_count(), 1))
    return np.asarray(over_devices(_any, jax.devices(), (0,), None)(here)).tolist()


def _any(facts: Array) -> Array:
    return lax.psum(facts.astype(int), AXIS) > 0
