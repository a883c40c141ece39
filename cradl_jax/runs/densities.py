"""The file of a density: an .npz of plain arrays."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from cradl_jax.densities import Density, dense, from_arrays, realnvp, to_arrays
from cradl_jax.densities.dense import Dense, Joint
from cradl_jax.densities.memory import Memory
from cradl_jax.errors import InputError, cause
from cradl_jax.names import DENSE, MEMORY, PATCHES
from cradl_jax.scoring import Local
from cradl_jax.storage.files import write_arrays
from cradl_jax.storage.reading import read_arrays

EXPECTED = "a density written by this package"
REMEDY = "remove it and fit the density again"
Tree = TypeVar("Tree")


def write_density(path: Path, density: Density) -> None:
    """Write a density's arrays and the name of its model's type."""
    write_arrays(path, {"kind": type(density.model).__name__} | to_arrays(density))


def read_density(path: Path) -> Density:
    """Read what `write_density` wrote.

    Raises:
        InputError: the file is missing, damaged, or does not hold a density.
    """
    return _read(path, lambda arrays: from_arrays(str(arrays.pop("kind")), arrays))


def write_local(path: Path, fitted: Local) -> None:
    """Write the arrays of what models features or patches at each position."""
    write_arrays(path, local_arrays(fitted))


def read_of_features(path: Path, name: str) -> Local:
    """Read what models features or pixels and is called `name`, as `write_local` wrote it.

    Raises:
        InputError: the file is missing, damaged, or holds something else.
    """
    return _read(path, partial(of_features_from, name))


def local_arrays(fitted: Local) -> dict[str, np.ndarray]:
    """Return the arrays by name, those of a part as "part.name"."""
    arrays = {}
    for name, part in fitted._asdict().items():
        if isinstance(part, Dense):
            arrays |= {f"{name}.{inner}": array for inner, array in local_arrays(part).items()}
        else:
            arrays[name] = np.asarray(part)
    return arrays


def dense_from(arrays: Mapping[str, ArrayLike]) -> Dense:
    """Return the Gaussians of which `local_arrays` returned these.

    Raises:
        ValueError: the shapes do not fit together.
        TypeError: the names are others.
    """
    fitted = Dense(**{name: jnp.asarray(array) for name, array in arrays.items()})
    heights, shape = fitted.heights.shape, fitted.mean.shape
    if len(shape) != 4 or fitted.whitening.shape != (*shape, shape[-1]) or heights != shape[:1]:
        raise ValueError(f"arrays of shapes {[array.shape for array in fitted]}")
    return fitted


def joint_from(arrays: Mapping[str, ArrayLike]) -> Joint:
    """Return the Gaussians of which `local_arrays` returned these; raises as `dense_from`."""
    parts: dict[str, dict[str, ArrayLike]] = {}
    for name, array in arrays.items():
        part, _, inner = name.partition(".")
        parts.setdefault(part, {})[inner] = array
    whole: dict[str, Any] = {
        name: dense_from(part) if name in ("features", "pixels") else jnp.asarray(part[""])
        for name, part in parts.items()
    }
    joint = Joint(**whole)
    if joint.projection.shape[1:] != joint.features.mean.shape[3:]:
        raise ValueError(f"a projection of shape {joint.projection.shape}")
    return joint


def memory_from(arrays: Mapping[str, ArrayLike]) -> Memory:
    """Return the memory of which `local_arrays` returned these; raises as `dense_from`."""
    kept = Memory(**{name: jnp.asarray(array) for name, array in arrays.items()})
    (_, count), (size, dimensions) = kept.projection.shape, kept.vectors.shape
    if dimensions != count or not size:
        raise ValueError(f"arrays of shapes {[array.shape for array in kept]}")
    return kept


def of_features_from(name: str, arrays: Mapping[str, ArrayLike]) -> Local:
    """Return what is called `name`, of which `local_arrays` returned these; as `dense_from`."""
    build = {MEMORY: memory_from, DENSE: joint_from, **dict.fromkeys(PATCHES, dense_from)}
    return build[name](arrays)


def _read(path: Path, built: Callable[[dict[str, np.ndarray]], Tree]) -> Tree:
    arrays = read_arrays(path, EXPECTED, REMEDY)
    try:
        return built(arrays)
    except (ValueError, TypeError, KeyError) as fault:
        raise InputError(
            f"{path}: expected {EXPECTED}, found arrays of something else ({cause(fault)}); "
            f"{REMEDY}"
        ) from fault


def byte_size(
    size: int,
    *,
    components: Sequence[int],
    blocks: int,
    hidden: int,
    image: int,
    memory: int = 0,
) -> int:
    """Return what mixtures of K `components` and a flow of representations [N, size] take on disk.

    With them, at most, the Gaussians at each position of slices of `image` x `image` pixels, and
    so many vectors of a `memory`. For `blocks` and `hidden` see `realnvp.init`.
    """
    grid = image // dense.patch_side(image)
    factors = dense.HEIGHTS * (grid * dense.COMPONENTS) ** 2 + memory * dense.COMPONENTS
    at_positions = (factors + 2 * dense.HEIGHTS * image**2) * np.dtype(np.float32).itemsize
    mixtures = sum(components) * (1 + size + size**2) * np.dtype(np.float32).itemsize
    block = jax.eval_shape(lambda: realnvp.init(jax.random.key(0), size, blocks=1, hidden=hidden))
    flow = blocks * sum(array.size * array.dtype.itemsize for array in block)
    statistics = 2 * size * np.dtype(np.float32).itemsize
    return at_positions + mixtures + flow + (len(components) + bool(blocks)) * statistics
