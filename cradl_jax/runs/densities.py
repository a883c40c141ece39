"""The file of a density: an .npz of plain arrays."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cradl_jax.densities import Density, from_arrays, realnvp, to_arrays
from cradl_jax.densities.dense import Dense
from cradl_jax.errors import InputError, cause
from cradl_jax.storage.files import write_arrays
from cradl_jax.storage.reading import read_arrays

EXPECTED = "a density written by this package"
REMEDY = "remove it and fit the density again"


def write_density(path: Path, density: Density) -> None:
    """Write a density's arrays and the name of its model's type."""
    write_arrays(path, {"kind": type(density.model).__name__} | to_arrays(density))


def read_density(path: Path) -> Density:
    """Read what `write_density` wrote.

    Raises:
        InputError: the file is missing, damaged, or does not hold a density.
    """
    arrays = read_arrays(path, EXPECTED, REMEDY)
    try:
        return from_arrays(str(arrays.pop("kind")), arrays)
    except (ValueError, TypeError, KeyError) as fault:
        raise InputError(f"{path}: expected {EXPECTED}, found {cause(fault)}; {REMEDY}") from fault


def write_dense(path: Path, dense: Dense) -> None:
    """Write the arrays of Gaussians at each position and height."""
    write_arrays(path, dense._asdict())


def read_dense(path: Path) -> Dense:
    """Read what `write_dense` wrote.

    Raises:
        InputError: the file is missing, damaged, or does not hold such Gaussians.
    """
    arrays = read_arrays(path, EXPECTED, REMEDY)
    try:
        dense = Dense(**{name: jnp.asarray(array) for name, array in arrays.items()})
        (heights,), shape = dense.heights.shape, dense.mean.shape
        if dense.whitening.shape != (*shape, shape[-1]) or len(shape) != 4 or heights != shape[0]:
            raise ValueError(f"arrays of shapes {[array.shape for array in dense]}")
    except (ValueError, TypeError, IndexError) as fault:
        raise InputError(f"{path}: expected {EXPECTED}, found {cause(fault)}; {REMEDY}") from fault
    return dense


def byte_size(size: int, *, components: Sequence[int], blocks: int, hidden: int) -> int:
    """Return what mixtures of K `components` and a flow of representations [N, size] take on disk.

    For `blocks` and `hidden` see `realnvp.init`.
    """
    mixtures = sum(components) * (1 + size + size**2) * np.dtype(np.float32).itemsize
    shapes = jax.eval_shape(
        lambda: realnvp.init(jax.random.key(0), size, blocks=blocks, hidden=hidden)
    )
    flow = sum(array.size * array.dtype.itemsize for array in shapes)
    statistics = 2 * size * np.dtype(np.float32).itemsize
    return mixtures + flow + (len(components) + 1) * statistics
