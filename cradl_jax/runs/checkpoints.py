"""Checkpoints of a run that survive interruption: the latest state and the best one.

The best has the smallest validation loss; a state saved between two epochs has none, and is never
the best. Weights are stored by orbax as plain arrays; nothing is pickled, loading runs no code.
Each checkpoint says of which run it is, and carries fingerprints that are compared when it is read.
They are computed beside the training, by a thread that orbax waits for before a checkpoint counts
as whole.
"""

import errno
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import future

from cradl_jax.devices.parallel import across_processes
from cradl_jax.devices.processes import is_first
from cradl_jax.errors import InputError, cause
from cradl_jax.objectives import Variables
from cradl_jax.storage.files import naming, require_space
from cradl_jax.storage.integrity import check, is_complete, sums
from cradl_jax.storage.manifest import MANIFEST, differences, fingerprint, read_manifest
from cradl_jax.training.steps import TrainState

NO_DAMAGE = (MemoryError, jax.errors.JaxRuntimeError)
"""Faults of the machine that reads a run, which say nothing about its files."""


def byte_size(tree) -> int:
    """Return the bytes that a tree's arrays take in memory, and about as many on disk."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _val_loss(metrics: dict[str, float]) -> float:
    return metrics.get("val_loss", math.inf)


class _OriginHandler(ocp.JsonCheckpointHandler):
    """Saves the JSON that a function returns, which a thread of orbax calls."""

    async def async_save(self, directory, item=None, args: Any = None) -> list[future.Future]:
        """Start the thread, which ends before the checkpoint counts as whole."""

        async def write() -> None:
            if is_first():
                (directory / "metadata").write_text(json.dumps(args.origin()))

        return [future.CommitFutureAwaitingContractedSignals(write(), name="origin")]


@ocp.args.register_with_handler(_OriginHandler, for_save=True)
@dataclass
class _SaveOrigin(ocp.args.CheckpointArgs):
    origin: Callable[[], dict]


@ocp.args.register_with_handler(_OriginHandler, for_restore=True)
@dataclass
class _RestoreOrigin(ocp.args.CheckpointArgs):
    pass


class Checkpoints(AbstractContextManager["Checkpoints"]):
    """The checkpoints of one run folder: the latest and the best by validation loss."""

    def __init__(self, run: Path, *, create: bool = True):
        """Open `run/checkpoints`; `create` makes the folder where it is missing.

        Processes that train together open, save and read together. Without `create` each one reads
        by itself.
        """
        index = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"alone{index}"
        )
        policies = ocp.checkpoint_managers
        best = policies.BestN(
            get_metric_fn=_val_loss,
            reverse=True,
            n=1,
            keep_checkpoints_without_metrics=False,  # a process was killed removing them
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(1), best]),
            best_fn=_val_loss,
            best_mode="min",
            create=create,
            cleanup_tmp_directories=create,  # what a killed process had not finished
            multiprocessing_options=ocp.options.MultiprocessingOptions() if create else alone,
        )
        self.run = run
        self.folder = (run / "checkpoints").absolute()
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def __exit__(self, *_):
        """Wait for what is being saved."""
        with self._full_disk_named():
            self.manager.close()

    def save(self, state: TrainState, val_loss: float | None) -> None:
        """Save in the background; a partly written checkpoint is never taken for a whole one.

        Between two epochs there is no validation loss.

        Raises:
            InputError: the disk has no room for it; the checkpoints that are there stay.
        """
        items = {"variables": state.variables, "optimizer": state.optimizer}
        require_space(self.folder, byte_size(items), "a checkpoint")
        run, *_ = _made_from(self.run)

        def origin() -> dict:
            return {"run": run} | {name: fingerprint(item) for name, item in items.items()}

        args = {name: ocp.args.StandardSave(across_processes(x)) for name, x in items.items()}
        with self._full_disk_named():
            self.manager.save(
                int(state.step),
                args=ocp.args.Composite(**args, origin=_SaveOrigin(origin)),
                metrics={} if val_loss is None else {"val_loss": val_loss},
            )

    @contextmanager
    def _full_disk_named(self) -> Iterator[None]:
        """Raise a disk that filled up while a checkpoint was written as an OSError."""
        try:
            with naming(self.folder):
                yield
        except ValueError as fault:
            message = os.strerror(errno.ENOSPC)
            if message not in str(fault):
                raise
            raise OSError(errno.ENOSPC, message, str(self.folder)) from fault

    def latest_step(self) -> int | None:
        """Return the step of the latest checkpoint, None if there is none."""
        return self.manager.latest_step()

    def best_step(self) -> int | None:
        """Return the step of the smallest validation loss, None before the first epoch ends."""
        step = self.manager.best_step()
        return step if step is not None and self.manager.metrics(step) else None

    def latest(self, template: TrainState) -> TrainState:
        """Restore the latest state; `template` gives its structure and shapes."""
        step = max(self.manager.all_steps())
        items = self.restore(step, variables=template.variables, optimizer=template.optimizer)
        return TrainState(template.step + step, items["variables"], items["optimizer"])

    def restore(self, step: int, **templates):
        """Restore those parts of a step's checkpoint that `templates` give the structure of.

        Raises:
            InputError: another run or model saved it, or it was changed since.
        """
        args = {name: ocp.args.StandardRestore(item) for name, item in templates.items()}
        place = self.folder / str(step)
        try:
            origin = self.origin(step)
            items = self.manager.restore(step, args=ocp.args.Composite(**args))
        except (InputError, *NO_DAMAGE):
            raise
        except Exception as fault:  # orbax raises bare ones on damaged files
            raise InputError(
                f"{place}: is damaged, or does not fit the configured model ({cause(fault)}); use "
                "the config that the run was trained with"
            ) from fault
        for name in templates:
            if fingerprint(items[name]) != origin[name]:
                raise InputError(
                    f"{place}: expected the {name} that were saved, found others; bring the "
                    "checkpoint back from a copy, or remove its folder and train on with --resume"
                )
        return items

    def origin(self, step: int) -> dict:
        """Read which run saved a checkpoint, and the fingerprints of its parts by their names.

        Raises:
            InputError: another run saved it, or its record is damaged.
        """
        record, place = ocp.args.Composite(origin=_RestoreOrigin()), self.folder / str(step)
        try:
            origin = self.manager.restore(step, args=record)["origin"]
            run = origin["run"]
        except NO_DAMAGE:
            raise
        except Exception as fault:  # orbax raises bare ones on damaged files
            raise InputError(
                f"{place}: expected a checkpoint, found a damaged one ({cause(fault)}); bring it "
                "back from a copy, or remove its folder and train on with --resume"
            ) from fault
        expected = _made_from(self.run)
        if run not in expected:
            differing = "; ".join(differences(run or {}, expected[0] or {}))
            raise InputError(
                f"{place}: expected a checkpoint of {self.run / MANIFEST}, found one of another "
                f"run ({differing}); bring back the run's own, or choose another folder"
            )
        return origin


def _made_from(run: Path) -> list[dict | None]:
    """Return the settings and the data that a run's manifest names; None without one.

    After them come those from before the run was trained further.
    """
    if not (run / MANIFEST).exists():
        return [None]
    manifest = read_manifest(run)
    every = [manifest, *manifest.get("before", ())]
    return [{"settings": one["settings"], "made_from": manifest["made_from"]} for one in every]


def read_best(run: Path, template: Variables) -> Variables:
    """Read `params` and `batch_stats` with the smallest validation loss, on one local device.

    Nothing is written, and the run may have been trained on other and more devices. `template`
    gives structure and shapes.

    Raises:
        InputError: the run is not trained, or has other shapes.
    """
    with _trained(run) as (kept, best):
        return kept.restore(best, variables=_here(template))["variables"]


def read_fingerprint(run: Path) -> str:
    """Return the fingerprint of the variables that `read_best` reads, without reading them.

    Raises:
        InputError: the run is not trained, or its checkpoint is of another run.
    """
    with _trained(run) as (kept, best):
        return kept.origin(best)["variables"]


def read_all(run: Path, template: Variables) -> list[Variables]:
    """Read `params` and `batch_stats` of every checkpoint; otherwise as `read_best`."""
    with _trained(run) as (kept, _):
        steps = kept.manager.all_steps()
        return [kept.restore(step, variables=_here(template))["variables"] for step in steps]


def _here(template: Variables) -> Variables:
    """Place the template on one device of this machine."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), template
    )


@contextmanager
def _trained(run: Path) -> Iterator[tuple[Checkpoints, int]]:
    """Open the checkpoints of a run that has some, and yield them with the step of the best."""
    untrained = InputError(
        f"{run / 'checkpoints'}: holds no checkpoint of a whole epoch; train the run first"
    )
    if not (run / "checkpoints").is_dir():
        raise untrained
    if is_complete(run):  # which checkpoint is the best rests on these
        metrics = [name for name in sums(run) if name.endswith("metrics/metrics")]
        check(run, "train it again", metrics)
    with Checkpoints(run, create=False) as kept:
        best = kept.best_step()
        if best is None:
            raise untrained
        yield kept, best
