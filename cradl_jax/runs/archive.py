"""A run in one portable file: a zip of JSON and safetensors, without the optimizer's state.

    run.json                 format, manifest, thresholds, chosen scores, fingerprints
    variables.safetensors    the network, a tensor a parameter
    densities.safetensors    `<density>/<parameter>`

Nothing in it is executed or unpacked to disk. Members are stored as they are: tensors hardly
compress, and a small file cannot grow to a large one.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from cradl_jax import densities, methods
from cradl_jax.errors import InputError, cause
from cradl_jax.evaluation import thresholds
from cradl_jax.objectives import Variables
from cradl_jax.runs import contents
from cradl_jax.storage.files import replacing
from cradl_jax.storage.integrity import with_hash, without_hash
from cradl_jax.storage.manifest import FORMAT, check_format

ABOUT, VARIABLES, DENSITIES = "run.json", "variables.safetensors", "densities.safetensors"
DAMAGED = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError),
    *(zipfile.BadZipFile, zlib.error, safetensors.SafetensorError, RuntimeError),
)


def write(path: Path, run: contents.RunContents) -> None:
    """Write a run; the same run gives the same bytes.

    Raises:
        InputError: the file cannot be written.
    """
    content = {
        "format": FORMAT,
        "versions": run.manifest["versions"],
        "identity": run.identity,
        "manifest": run.manifest,
        "chosen": run.chosen,
        "densities": {name: type(one.model).__name__ for name, one in run.densities.items()},
        "thresholds": thresholds.plain(run.thresholds),
    }
    fitted = {name: densities.arrays(density) for name, density in run.densities.items()}
    members = {
        ABOUT: json.dumps(with_hash(content), indent=1).encode(),
        VARIABLES: safetensors.numpy.save(_flat(run.variables)),
        DENSITIES: safetensors.numpy.save(_flat(fitted)),
    }
    try:
        with replacing(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as file:
            for name, data in members.items():
                file.writestr(zipfile.ZipInfo(name), data)
    except OSError as fault:
        raise InputError(
            f"{path}: expected a file that can be written, found {fault}; name another with --out"
        ) from fault


def read(path: Path) -> contents.RunContents:
    """All parts of an exported run.

    Raises:
        InputError: it is no exported run, damaged, or of another version.
    """
    try:
        members = _members(path)
        content = json.loads(members[ABOUT])
        check_format(path, content)
        content = without_hash(content)
        manifest = content["manifest"]
        variables = _variables(manifest["settings"], members[VARIABLES])
        fitted = _densities(content["densities"], members[DENSITIES])
        known = thresholds.from_plain(content["thresholds"])
        run = contents.RunContents(manifest, variables, fitted, known, content["chosen"])
        if run.identity != content["identity"]:
            raise ValueError("weights or densities other than those that were exported")
    except InputError:
        raise
    except DAMAGED as fault:
        raise InputError(
            f"{path}: expected a run written by experiments.export, found {cause(fault)}; export "
            "the run again"
        ) from fault
    return run


def _members(path: Path) -> dict[str, bytes]:
    """The three members, by name; any other, or a packed one, is refused."""
    with zipfile.ZipFile(path) as file:
        infos = file.infolist()
        names = sorted(info.filename for info in infos)
        if names != sorted((ABOUT, VARIABLES, DENSITIES)):
            raise ValueError(f"the members {names}")
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise ValueError("compressed members")
        if sum(info.file_size for info in infos) > path.stat().st_size:
            raise ValueError("members larger than the file")
        return {info.filename: file.read(info) for info in infos}


def _flat(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Nested arrays under names with slashes."""
    flat = flatten_dict(jax.device_get(tree), sep="/")
    return {name: np.ascontiguousarray(array) for name, array in flat.items()}


def _variables(settings: Mapping[str, Any], data: bytes) -> Variables:
    """The network's variables, if they are those of a network of these settings."""
    variables = unflatten_dict(safetensors.numpy.load(data), sep="/")
    network, size = contents.network(settings), settings["size"]
    expected = jax.eval_shape(lambda: methods.initial_variables(network, 0, size))
    found = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
    if found != expected:
        raise ValueError("weights of another network")
    return jax.tree.map(jnp.asarray, variables)


def _densities(kinds: Mapping[str, str], data: bytes) -> dict[str, densities.Density]:
    found = unflatten_dict(safetensors.numpy.load(data), sep="/")
    if found.keys() != kinds.keys():
        raise ValueError(f"the densities {sorted(found)}")
    return {name: densities.from_arrays(kind, found[name]) for name, kind in kinds.items()}
