"""The one file that names pmap: pure per-device functions, run on one device or on many.

A per-device function sees its share of a batch and the axis `AXIS`, over which it gathers and
averages. One device takes the same path as eight.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cradl_jax.errors import InputError

AXIS = "devices"
Devices = Sequence[jax.Device]


def over_devices(
    function: Callable, devices: Devices, in_axes: tuple[int | None, ...], out_axes: int | None
) -> Callable:
    """`function` on every device: axis 0 is shared out, axis None is the same everywhere.

    A result with axis None must have been synchronised over `AXIS` by `function`. The same
    arguments give the same compiled function.
    """
    return _compiled(function, tuple(devices), in_axes, out_axes)


@functools.lru_cache
def _compiled(function, devices, in_axes, out_axes):
    return jax.pmap(function, axis_name=AXIS, devices=devices, in_axes=in_axes, out_axes=out_axes)


def everywhere(tree, devices: Devices):
    """`tree`, the same on every device, laid out as `over_devices` returns what has axis None."""
    mesh = Mesh(np.array(devices), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def copy_to_each(array: np.ndarray, devices: Devices) -> Array:
    """`array` [...] copied to every device once: [devices, ...], one row on each."""
    sharding = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))
    copies = [jax.device_put(array[None], device) for device in devices]
    return jax.make_array_from_single_device_arrays((len(devices), *array.shape), sharding, copies)


def share_out(batches: np.ndarray, devices: Devices) -> np.ndarray:
    """Global batches [S, B, ...] -> each device's part, in order: [devices, S, B / devices, ...].

    Raises:
        InputError: B does not divide by the number of devices.
    """
    steps, batch, *rest = batches.shape
    count = len(devices)
    if batch % count:
        raise InputError(
            f"batch size {batch} does not divide over {count} devices; "
            f"choose a multiple of {count}, e.g. {max(1, batch // count) * count}"
        )
    return np.moveaxis(batches.reshape(steps, count, batch // count, *rest), 1, 0)
