"""The manifest of a folder: settings, versions, and fingerprints.

`made_from` is the fingerprint of the data or weights that the folder was made from; a finished
folder of weights has their own as its `fingerprint`, so that whoever rests on them compares two
strings and reads no weights.
"""

import hashlib
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

import cradl_jax
from cradl_jax.errors import InputError
from cradl_jax.storage.files import write_json
from cradl_jax.storage.reading import read_json

FORMAT = 7
"""Of run folders and exported runs; another number means that this version cannot read them."""
MANIFEST = "manifest.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "distrax", "numpy", "nibabel")


def versions() -> dict[str, str]:
    """Return versions of Python and of the packages that results depend on, and the device."""
    own = {"cradl_jax": cradl_jax.__version__, "python": platform.python_version()}
    packages = {name: metadata.version(name) for name in PACKAGES}
    return own | packages | {"device": jax.devices()[0].device_kind}


def git_commit() -> str | None:
    """Return the commit of the code that runs, None outside a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def fingerprint(tree) -> str:
    """Return the SHA-256 of a tree's arrays: trees with one fingerprint are the same weights."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(tree)):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def write_manifest(folder: Path, settings: dict, made_from: str) -> None:
    """Write `folder/manifest.json`, or check that the one there has the same settings and origin.

    `settings` are plain values, `made_from` the fingerprint of data or weights.

    Raises:
        InputError: the folder was made with others; the message names what differs.
    """
    if (folder / MANIFEST).exists():
        check_manifest(folder, settings, made_from)
        return
    about = {"versions": versions(), "git_commit": git_commit()}
    content = {"format": FORMAT, "settings": settings, "made_from": made_from, **about}
    write_json(folder / MANIFEST, content)


def extend_manifest(folder: Path, settings: dict) -> None:
    """Give a folder's manifest other settings; it keeps the former ones in `before`, oldest first.

    Each of them has the versions and the commit of its time.
    """
    manifest = read_manifest(folder)
    past = {name: manifest[name] for name in ("settings", "versions", "git_commit")}
    content = manifest | {"settings": settings, "versions": versions(), "git_commit": git_commit()}
    write_json(folder / MANIFEST, content | {"before": [*manifest.get("before", ()), past]})


def write_fingerprint(folder: Path, fingerprint: str) -> None:
    """Add to a folder's manifest the fingerprint of the weights that are now complete in it."""
    write_json(folder / MANIFEST, {**read_manifest(folder), "fingerprint": fingerprint})


def check_manifest(folder: Path, settings: dict, made_from: str | None = None) -> None:
    """Raise an InputError if `folder` was made with other settings, data or weights."""
    manifest = read_manifest(folder)
    differing = differences(manifest["settings"], settings)
    if made_from not in (None, manifest["made_from"]):
        differing.append(
            f"the data or weights it was made from: expected {made_from}, "
            f"found {manifest['made_from']}"
        )
    if differing:
        raise InputError(
            f"{folder}: was made with different settings ({'; '.join(differing)}); "
            "go back to those, or choose another folder (--workdir)"
        )


def differences(found: dict, expected: dict) -> list[str]:
    """Return where nested settings differ, in words."""
    found, expected = flat(found), flat(json.loads(json.dumps(expected)))

    def said(settings: dict, name: str) -> str:
        return repr(settings[name]) if name in settings else "no such setting"

    return [
        f"{name}: expected {said(expected, name)}, found {said(found, name)}"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]


def flat(settings: dict, prefix: str = "") -> dict:
    """Return nested settings under dotted names."""
    values = {}
    for name, value in settings.items():
        inner = isinstance(value, dict)
        values |= flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return values


def read_manifest(folder: Path) -> dict:
    """Read the manifest of a run folder or a part of it.

    Raises:
        InputError: there is none, it cannot be read, or another version wrote it.
    """
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
    except (OSError, ValueError) as fault:
        raise InputError(
            f"{path}: expected the manifest of a finished run, found {fault}; "
            "run the stages before this one"
        ) from fault
    check_format(path, manifest)
    if not isinstance(manifest.get("settings"), dict) or "made_from" not in manifest:
        raise InputError(
            f"{path}: expected settings and made_from, found {', '.join(manifest)}; bring the file "
            "back from a copy, or make what it describes again"
        )
    return manifest


def check_format(path: Path, manifest: Any) -> None:
    """Raise an InputError unless the manifest at `path` has the format of this version."""
    fields = manifest if isinstance(manifest, dict) else {}
    if fields.get("format") != FORMAT:
        by = dict(fields.get("versions") or {}).get("cradl_jax", "unknown")
        raise InputError(
            f"{path}: expected format {FORMAT}, which cradl_jax {cradl_jax.__version__} writes, "
            f"found {fields.get('format')!r} of cradl_jax {by}; make it again, or use the version "
            "that made it"
        )
