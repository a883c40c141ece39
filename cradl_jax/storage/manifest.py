"""The manifest of a folder: settings, versions, and the fingerprint of what it was made from."""

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

FORMAT = 2
"""Of run folders and exported runs; another number means that this version cannot read them."""
MANIFEST = "manifest.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "distrax", "numpy", "nibabel")


def versions() -> dict[str, str]:
    """Versions of Python and the packages that a result depends on, and the device's name."""
    found = {"cradl_jax": cradl_jax.__version__, "python": platform.python_version()}
    found |= {name: metadata.version(name) for name in PACKAGES}
    return found | {"device": jax.devices()[0].device_kind}


def git_commit() -> str | None:
    """The commit of the code that runs, None outside a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def fingerprint(tree) -> str:
    """SHA-256 of a tree's arrays: two trees with one fingerprint are the same weights."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(tree)):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def write_manifest(folder: Path, settings: dict, fingerprint: str) -> None:
    """Write `folder/manifest.json`, or check that the one there is of the same settings and data.

    Args:
        folder: of a run or of one of its parts.
        settings: what it depends on, plain values.
        fingerprint: of the data or weights it is made from.

    Raises:
        InputError: the folder was made with others; the message names what differs.
    """
    if (folder / MANIFEST).exists():
        check_manifest(folder, settings, fingerprint)
        return
    about = {"versions": versions(), "git_commit": git_commit()}
    content = {"format": FORMAT, "settings": settings, "fingerprint": fingerprint, **about}
    write_json(folder / MANIFEST, content)


def check_manifest(folder: Path, settings: dict, fingerprint: str | None = None) -> None:
    """Raise an InputError if `folder` was made with other settings, data or weights."""
    known = read_manifest(folder)
    differing = differences(known["settings"], settings)
    if fingerprint not in (None, known["fingerprint"]):
        differing.append(
            f"the data or weights it was made from: expected {fingerprint}, "
            f"found {known['fingerprint']}"
        )
    if differing:
        raise InputError(
            f"{folder}: was made with other settings ({'; '.join(differing)}); "
            "choose another folder (--workdir), or remove that one to make it anew"
        )


def differences(found: dict, expected: dict) -> list[str]:
    """Where nested settings differ, in words."""
    found, expected = flat(found), flat(json.loads(json.dumps(expected)))
    return [
        f"{name}: expected {expected.get(name)!r}, found {found.get(name)!r}"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]


def flat(settings: dict, prefix: str = "") -> dict:
    """Nested settings under dotted names."""
    found = {}
    for name, value in settings.items():
        inner = isinstance(value, dict)
        found |= flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return found


def read_manifest(folder: Path) -> dict:
    """The manifest of a run folder or a part of it.

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
    if not isinstance(manifest.get("settings"), dict) or "fingerprint" not in manifest:
        raise InputError(
            f"{path}: expected settings and a fingerprint, found {', '.join(manifest)}; bring the "
            "file back from a copy, or make what it is of anew"
        )
    return manifest


def check_format(path: Path, manifest: Any) -> None:
    """Raise an InputError unless the manifest at `path` is of the format of this version."""
    known = manifest if isinstance(manifest, dict) else {}
    if known.get("format") != FORMAT:
        by = dict(known.get("versions") or {}).get("cradl_jax", "unknown")
        raise InputError(
            f"{path}: expected format {FORMAT}, which cradl_jax {cradl_jax.__version__} writes, "
            f"found {known.get('format')!r} of cradl_jax {by}; make it anew, or use the version "
            "that made it"
        )
