"""A run in one portable file: safetensors with metadata, without the optimizer's state.

    network/<parameter>                the network, a tensor a parameter
    densities/<density>/<parameter>    the densities
    dense/<parameter>                  the Gaussians at each position and height; like densities
                                       only where the network has an encoder
    memory/<parameter>                 the memory of patches, where the run has one
    metadata, `run`                    JSON: format, manifest, thresholds, chosen scores, the kinds
                                       of the densities, fingerprint, the model card, and a
                                       checksum of it all

Reading it executes nothing, and takes no more memory than the file has bytes: safetensors refuses
a header above 100 MB, and tensors that overlap, leave gaps or reach beyond the file's end.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cradl_jax import densities
from cradl_jax.errors import InputError, cause
from cradl_jax.names import BASELINE, OF_FEATURES, PATCHES
from cradl_jax.runs import contents
from cradl_jax.runs.densities import local_arrays, of_features_from
from cradl_jax.storage.files import replacing
from cradl_jax.storage.manifest import FORMAT, check_format, fingerprint
from cradl_jax.storage.schema import parse

NETWORK, DENSITIES = "network", "densities"
ABOUT = "run"
DAMAGED = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError),
    *(SafetensorError, RecursionError),
)


def write(path: Path, run: contents.RunContents) -> None:
    """Write a run; the same run gives the same bytes.

    Raises:
        InputError: the file cannot be written.
    """
    about = {
        "format": FORMAT,
        "versions": run.manifest["versions"],
        "fingerprint": run.fingerprint,
        "manifest": dict(run.manifest),
        "chosen": dict(run.chosen),
        "densities": {name: type(one.model).__name__ for name, one in run.densities.items()},
        "thresholds": run.thresholds.model_dump(),
        **({} if run.card is None else {"card": run.card}),
    }
    fitted = {name: densities.to_arrays(density) for name, density in run.densities.items()}
    of_features = {name: local_arrays(one) for name, one in run.of_features.items()}
    parts = {NETWORK: run.variables, DENSITIES: fitted, **of_features}
    flat = flatten_dict(jax.device_get(parts), sep="/")
    tensors = {name: np.ascontiguousarray(array) for name, array in flat.items()}
    metadata = {ABOUT: json.dumps({**about, "checksum": checksum(about, tensors)})}
    try:
        with replacing(path) as aside:
            save_file(tensors, aside, metadata)
    except OSError as fault:
        raise InputError(
            f"{path}: expected a file that can be written, found {fault}; name another with --out"
        ) from fault


def read(path: Path) -> contents.RunContents:
    """Read an exported run.

    Raises:
        InputError: it is no exported run, damaged, or of another version.
    """
    try:
        with safe_open(path, "np") as file:
            about = json.loads((file.metadata() or {})[ABOUT])
            check_format(path, about)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about.pop("checksum", None) != checksum(about, tensors):
            raise ValueError("values other than those that were exported")
        return _built(about, unflatten_dict(tensors, sep="/"))
    except InputError:
        raise
    except DAMAGED as fault:
        raise InputError(
            f"{path}: expected a run written by experiments.export, found {cause(fault)}; export "
            "the run again"
        ) from fault


def checksum(about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of plain values, and of tensors and their names."""
    plain = json.loads(json.dumps([about, sorted(tensors)]))
    text = json.dumps(plain, sort_keys=True) + fingerprint(dict(tensors))
    return hashlib.sha256(text.encode()).hexdigest()


def _built(about: Mapping[str, Any], tensors: Mapping[str, Any]) -> contents.RunContents:
    """Return the run that a file's plain values and nested tensors describe."""
    manifest, kinds = about["manifest"], about["densities"]
    fitted = tensors.get(DENSITIES, {})
    baseline = manifest["settings"]["method"] == BASELINE
    modelled = tensors.keys() & {*OF_FEATURES, *PATCHES}
    expected = {*([] if baseline else [NETWORK]), *([DENSITIES] if kinds else []), *modelled}
    if tensors.keys() != expected or fitted.keys() != kinds.keys():
        raise ValueError(f"the tensors {sorted(tensors)} and densities {sorted(fitted)}")
    variables = jax.tree.map(jnp.asarray, tensors.get(NETWORK, {}))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
    if not baseline and shapes != contents.template(manifest["settings"]):
        raise ValueError("weights of another network")
    fitted = {name: densities.from_arrays(kind, fitted[name]) for name, kind in kinds.items()}
    of_features = {name: of_features_from(name, tensors[name]) for name in modelled}
    of_network = None if baseline else fingerprint(variables)
    own = contents.fingerprint_of(of_network, fitted, of_features)
    if own != about["fingerprint"]:
        raise ValueError("weights other than those that were exported")
    thresholds = parse(contents.Thresholds, about["thresholds"])
    chosen, card = about["chosen"], about.get("card")
    if not isinstance(card, str | None):
        raise ValueError("a model card that is no text")
    return contents.RunContents(
        manifest, variables, fitted, of_features, thresholds, chosen, own, card
    )
