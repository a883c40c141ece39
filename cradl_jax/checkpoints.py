"""Run folders: checkpoints that survive interruption, and a manifest of what made them.

    run/manifest.json     versions, seed, settings, fingerprint of the data, git commit
    run/checkpoints/      the latest state and the one with the smallest validation loss

Weights are stored by orbax as plain arrays; nothing is pickled, loading runs no code.
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
import orbax.checkpoint as ocp

import cradl_jax
from cradl_jax.errors import InputError
from cradl_jax.files import write_json
from cradl_jax.objectives import Variables
from cradl_jax.reading import read_json
from cradl_jax.train import TrainState

FORMAT = 1
"""Of run folders and exported runs; another number means that this version cannot read them."""
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
    if (folder / "manifest.json").exists():
        check_manifest(folder, settings, fingerprint)
        return
    about = {"versions": versions(), "git_commit": git_commit()}
    content = {"format": FORMAT, "settings": settings, "fingerprint": fingerprint, **about}
    write_json(folder / "manifest.json", content)


def check_manifest(folder: Path, settings: dict, fingerprint: str | None = None) -> None:
    """Raise an InputError if `folder` was made with other settings, data or weights."""
    known = read_manifest(folder)
    found, expected = _flat(known["settings"]), _flat(json.loads(json.dumps(settings)))
    differing = [
        f"{name}: expected {expected.get(name)!r}, found {found.get(name)!r}"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]
    if fingerprint not in (None, known["fingerprint"]):
        differing.append("the data or weights it was made from")
    if differing:
        raise InputError(
            f"{folder}: was made with other settings ({'; '.join(differing)}); "
            "choose another folder (--workdir), or remove that one to make it anew"
        )


def _flat(settings: dict, prefix: str = "") -> dict:
    """Nested settings under dotted names."""
    flat = {}
    for name, value in settings.items():
        inner = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return flat


def read_manifest(folder: Path) -> dict:
    """The manifest of a run folder or a part of it.

    Raises:
        InputError: there is none, it cannot be read, or another version wrote it.
    """
    path = folder / "manifest.json"
    try:
        manifest = read_json(path)
    except (OSError, ValueError) as fault:
        raise InputError(
            f"{path}: expected the manifest of a finished run, found {fault}; "
            "run the stages before this one"
        ) from fault
    check_format(path, manifest)
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


class Checkpoints:
    """The checkpoints of one run folder: the latest and the best by validation loss."""

    def __init__(self, run: Path, *, create: bool = True):
        """Open `run/checkpoints`; `create` makes the folder where it is missing."""
        policies = ocp.checkpoint_managers
        best = policies.BestN(get_metric_fn=lambda m: m["val_loss"], reverse=True, n=1)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(1), best]),
            best_fn=lambda m: m["val_loss"],
            best_mode="min",
            create=create,
        )
        self.folder = (run / "checkpoints").absolute()
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self):
        """Itself."""
        return self

    def __exit__(self, *_):
        """Wait for what is being saved."""
        self.manager.close()

    def save(self, state: TrainState, val_loss: float) -> None:
        """Save in the background; a partly written checkpoint is never taken for a whole one."""
        variables = ocp.args.StandardSave(state.variables)
        optimizer = ocp.args.StandardSave(state.optimizer)
        self.manager.save(
            int(state.step),
            args=ocp.args.Composite(variables=variables, optimizer=optimizer),
            metrics={"val_loss": val_loss},
        )

    def latest_step(self) -> int | None:
        """Step of the latest checkpoint, None if there is none."""
        return self.manager.latest_step()

    def latest(self, template: TrainState) -> TrainState:
        """The latest state; `template` gives its structure and shapes."""
        step = self.manager.latest_step()
        items = self._restore(step, variables=template.variables, optimizer=template.optimizer)
        return TrainState(template.step + step, items.variables, items.optimizer)

    def best(self, template: Variables) -> Variables:
        """`params` and `batch_stats` with the smallest validation loss."""
        return self._restore(self.manager.best_step(), variables=template).variables

    def _restore(self, step: int, **templates):
        args = {name: ocp.args.StandardRestore(item) for name, item in templates.items()}
        try:
            return self.manager.restore(step, args=ocp.args.Composite(**args))
        except (ValueError, KeyError, FileNotFoundError) as fault:
            raise InputError(
                f"{self.folder / str(step)}: does not fit the configured model ({fault}); "
                "use the config that the run was trained with"
            ) from fault


def read_best(run: Path, template: Variables) -> Variables:
    """`params` and `batch_stats` with the smallest validation loss, on one device of this machine.

    Nothing is written, and the run may have been trained on other and more devices.

    Args:
        run: a run folder.
        template: its structure and shapes.

    Raises:
        InputError: the run is not trained, or has other shapes.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), template
    )
    untrained = InputError(f"{run / 'checkpoints'}: holds no checkpoint; train the run first")
    if not (run / "checkpoints").is_dir():
        raise untrained
    with Checkpoints(run, create=False) as kept:
        if kept.latest_step() is None:
            raise untrained
        return kept.best(template)
