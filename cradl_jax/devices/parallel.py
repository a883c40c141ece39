"""The one door to devices: pure per-device functions, run on one device or on many.

A per-device function sees its share of a batch and the axis `AXIS`, over which it gathers and
averages. One device takes the same path as eight, and as those of several processes: each process
gives its own devices their shares, in the order of `devices`, which is the same in all of them.

The door opens on `jax.pmap`; on `jax.jit` of `jax.shard_map`, which JAX recommends in its place,
where the environment has CRADL_SHARD_MAP=1, or where JAX has no `pmap` any more.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import multihost_utils
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
    door = _by_shard_map if _pmap_is_avoided() else _by_pmap
    return door(function, tuple(devices), in_axes, out_axes)


def _pmap_is_avoided() -> bool:
    return os.environ.get("CRADL_SHARD_MAP", "0") == "1" or not hasattr(jax, "pmap")


@functools.lru_cache
def _by_pmap(function, devices, in_axes, out_axes):
    return jax.pmap(function, axis_name=AXIS, devices=devices, in_axes=in_axes, out_axes=out_axes)


@functools.lru_cache
def _by_shard_map(function, devices, in_axes, out_axes):
    mesh = _mesh(devices)
    specs = tuple(map(_spec, in_axes))

    def on_device(*arguments: Any) -> Any:
        pairs = zip(arguments, in_axes, strict=True)
        result = function(*(tree if axis is None else _first(tree) for tree, axis in pairs))
        return result if out_axes is None else jax.tree.map(lambda array: array[None], result)

    mapped = jax.shard_map(
        on_device, mesh=mesh, in_specs=specs, out_specs=_spec(out_axes), check_vma=False
    )
    run = jax.jit(mapped)

    def of_all_processes(*arguments: Any) -> Any:
        arrays = jax.tree.map(jnp.asarray, arguments)
        return run(*multihost_utils.host_local_array_to_global_array(arrays, mesh, specs))

    return run if jax.process_count() == 1 else of_all_processes


def _spec(axis: int | None) -> PartitionSpec:
    return PartitionSpec() if axis is None else PartitionSpec(AXIS)


def _first(tree: Any) -> Any:
    """Return the rows of a device, of which shard_map keeps the axis."""
    return jax.tree.map(lambda array: array[0], tree)


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
    return NamedSharding(_mesh(devices), spec)


def _mesh(devices: Devices) -> Mesh:
    return Mesh(np.array(devices), (AXIS,))


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
