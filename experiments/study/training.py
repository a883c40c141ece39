"""What the training commands share: data, loop, checkpoints, logs and the progress bar."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import optax
from ml_collections import ConfigDict
from tqdm import tqdm

from cradl_jax.cli.interruption import Terminated, deferred
from cradl_jax.data.slices.store import SliceStore
from cradl_jax.data.slices.subset import SliceSubset
from cradl_jax.devices import processes
from cradl_jax.devices.parallel import any_process
from cradl_jax.errors import Diverged, InputError
from cradl_jax.methods import initial_variables
from cradl_jax.models.fae import with_encoder
from cradl_jax.names import FAE
from cradl_jax.objectives import Objective
from cradl_jax.runs.checkpoints import Checkpoints, byte_size
from cradl_jax.runs.folder import read_variables
from cradl_jax.storage.files import require_space, write_json
from cradl_jax.storage.integrity import SUMS, is_complete, write_checksums
from cradl_jax.storage.manifest import (
    differences,
    extend_manifest,
    read_manifest,
    write_manifest,
)
from cradl_jax.training.feeds import Feed, resident, room, streamed
from cradl_jax.training.loop import Progress, steps_per_epoch, train
from cradl_jax.training.steps import TrainState, adam, create_state
from experiments.cli.locking import exclusive_stage
from experiments.study import data_sets, runs, settings
from experiments.study.training_log import Log

SAVE_SECONDS = 600  # between two checkpoints within an epoch
CHECKPOINTS = 3  # the latest, the best, and one that is being written
SHOWN = 5  # scans named in a message


class Setup(NamedTuple):
    """A training before its first step.

    Attributes:
        objective: what it minimises.
        optimizer: of the parameters.
        state: with the initial weights.
        data: the healthy slices of training and of validation.
        steps: in all epochs.
    """

    objective: Objective
    optimizer: optax.GradientTransformation
    state: TrainState
    data: tuple[SliceSubset, SliceSubset]
    steps: int


@exclusive_stage("training of {}, seed {seed}")
def fit(config: ConfigDict, workdir: Path, method: str, resume: bool) -> None:
    """Train a method on the healthy slices and keep the checkpoint of smallest validation loss.

    With `resume` a finished training goes on to more epochs, see `allow_more_epochs`.

    SIGTERM or Ctrl-C ends it after the chunk of steps that it is at, once that is saved.

    Raises:
        InputError: the run exists and `resume` is false, or it was made with other settings or
            data, or the encoder that it takes is missing, or training met numbers that are not
            finite.
    """
    healthy = next(iter(data_sets.stores(config, workdir).values()))
    run = runs.folder(workdir, config.seed, method)
    origin = runs.origin(config, workdir, method, healthy)
    setup = set_up(config, method, healthy)
    if method == FAE:
        trained = read_variables(runs.encoder_of(config, workdir, healthy))
        variables = with_encoder(setup.state.variables, trained)
        setup = setup._replace(state=replace(setup.state, variables=variables))

    def prepare() -> None:
        if resume:
            allow_more_epochs(run, *origin)
        write_manifest(run, *origin)

    processes.broadcast_from_first(prepare)
    with Checkpoints(run) as checkpoints:
        done = checkpoints.latest_step() or 0
        if done and not resume:
            raise InputError(f"{run}: already holds checkpoints; add --resume to continue")
        if done < setup.steps:
            try:
                train_from(done, setup, config, method, checkpoints)
            except Diverged as fault:
                subjects = healthy.subjects[setup.data[0].rows[fault.rows]]
                raise explained(fault, run, subjects, checkpoints.latest_step()) from fault
    processes.broadcast_from_first(lambda: complete_run(run))


def allow_more_epochs(run: Path, expected: dict, made_from: str) -> None:
    """Let a finished training go on, if nothing but more epochs is expected of it.

    From its last step on the learning rate is that of a training planned for all the epochs: where
    it is annealed it rises from 0 to that cosine. The manifest tells it, in `before`.
    """
    if not is_complete(run):
        return
    manifest = read_manifest(run)
    done, epochs = manifest["settings"]["train"]["epochs"], expected["train"]["epochs"]
    differing = differences(manifest["settings"], expected)
    if epochs <= done or len(differing) > 1 or manifest["made_from"] != made_from:
        return  # `write_manifest` says what differs
    (run / SUMS).unlink()  # the run is not finished any more
    extend_manifest(run, expected)
    print(
        f"{run}: trained for {done} epochs, goes on to {epochs}; the learning rate is that of "
        f"{epochs} epochs from here on, and what was fitted to its weights must be made again",
        flush=True,
    )


def set_up(config: ConfigDict, method: str, healthy: SliceStore) -> Setup:
    """Build what a method trains on the healthy slices."""
    options = settings.of_method(config, method).train
    seen, held_out = (
        SliceSubset(healthy.images, healthy.rows(split)) for split in ("train", "val")
    )
    epoch = steps_per_epoch(len(seen), options.batch_size)
    return Setup(*start(config, method, epoch), (seen, held_out), epoch * options.epochs)


def start(
    config: ConfigDict, method: str, epoch: int
) -> tuple[Objective, optax.GradientTransformation, TrainState]:
    """Return objective, optimizer and first state of a training with `epoch` steps an epoch."""
    model = settings.network(config, method)
    options = settings.of_method(config, method).train
    steps, warmup = epoch * options.epochs, epoch * options.warmup_epochs
    optimizer = adam(options.learning_rate, options.weight_decay, warmup, steps, options.annealing)
    state = create_state(initial_variables(model, config.seed, config.data.size), optimizer)
    return settings.objective(config, method, model), optimizer, state


def train_from(
    done: int, setup: Setup, config: ConfigDict, method: str, checkpoints: Checkpoints
) -> None:
    """Train from the step `done`, 0 or that of the latest checkpoint, with a bar and a log.

    Raises:
        Diverged: see `training.loop.train`.
    """
    run, options = checkpoints.run, settings.of_method(config, method).train
    state = checkpoints.latest(setup.state) if done else setup.state
    missing = (CHECKPOINTS - len(checkpoints.manager.all_steps())) * byte_size(state)
    processes.broadcast_from_first(lambda: require_space(run, missing, "the checkpoints"))
    chunks = train(
        state,
        setup.objective,
        setup.optimizer,
        *setup.data,
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=config.seed,
        devices=jax.devices(),
        place=choose_feed(config.data.stream, setup.data),
    )
    first = processes.is_first()
    bar = {"total": setup.steps, "initial": done, "unit": "step", "desc": f"train {method}"}
    log = closing(Log(run, done)) if first else nullcontext()
    with tqdm(**bar, disable=not first) as bar, log as log, deferred() as stopping:
        follow(chunks, checkpoints, log, bar, options.batch_size, stopping)


def choose_feed(stream: str, data: Sequence[SliceSubset]) -> Callable[..., Feed]:
    """Choose how slices reach the devices: all at the start where they fit, else when due.

    Args:
        stream: "auto", or "always" or "never" from disk.
        data: the slices of training and validation.
    """
    streams, words = placement(stream, sum(len(images) * images[:1].nbytes for images in data))
    if processes.is_first():
        print(words, flush=True)
    return streamed if streams else resident


def placement(stream: str, needed: int) -> tuple[bool, str]:
    """Return whether slices of `needed` bytes stream from disk, and in words where they lie.

    All processes call this together: they stream if one must. For `stream` see `choose_feed`.
    """
    free = room(jax.devices())
    streams = stream == "always" or (stream == "auto" and needed > free)
    streams = any(processes.all_gather(streams))
    where = "stream from disk" if streams else "lie on every device"
    return streams, (
        f"slices: {needed / 1e9:.2f} GB {where}, {free / 1e9:.2f} GB fit on one (--config."
        f"data.stream={stream})"
    )


def follow(
    chunks: Iterator[Progress],
    checkpoints: Checkpoints,
    log: Log | None,
    bar: tqdm,
    batch_size: int,
    stopping: Callable[[], bool],
) -> None:
    """Log and save the chunks of a training until its end, or until `stopping` says so.

    Raises:
        Terminated: another process is to stop.
    """
    started = saved = time.monotonic()
    done = bar.n
    for chunk in chunks:
        step, now = int(chunk.state.step), time.monotonic()
        show(chunk, step, (step - done) * batch_size / (now - started), log, bar)
        done, started = step, now
        stop, due = any_process(stopping(), now - saved > SAVE_SECONDS)
        if chunk.val is not None or stop or due:
            if log:
                log.flush()
            checkpoints.save(chunk.state, chunk.val["loss"] if chunk.val else None)
            saved = now
        if stop and not stopping():
            raise Terminated
        if stop:
            return


def show(chunk: Progress, step: int, speed: float, log: Log | None, bar: tqdm) -> None:
    """Log a chunk that ended at `step` with `speed` slices per second, and advance the bar."""
    values = {f"train/{name}": value for name, value in chunk.train.items()}
    values["train/slices_per_second"] = speed
    if chunk.val is not None:
        values |= {f"val/{name}": value for name, value in chunk.val.items()}
        bar.set_postfix_str(
            f"loss {chunk.train['loss']:.3f}, val {chunk.val['loss']:.3f}, {speed:.0f} slices/s"
        )
    if log:
        log(step, values)
    bar.update(step - bar.n)


def explained(fault: Diverged, run: Path, subjects: Iterable[str], kept: int | None) -> InputError:
    """Say which scans a training diverged at, also in diverged.json, and which step is kept."""
    scans, steps = sorted(set(subjects)), list(fault.steps)
    if processes.is_first():
        write_json(run / "diverged.json", {"steps": steps, "scans": scans, "kept": kept})
    shown = ", ".join(scans[:SHOWN]) + (", ..." if len(scans) > SHOWN else "")
    batch = "the batch has" if len(steps) == 1 else f"their {len(steps)} batches have"
    rest = f"the checkpoint of step {kept} is the last one kept and finite"
    return InputError(
        f"{run}: {fault}; {batch} slices of {len(scans)} scans ({shown}; all in diverged.json); "
        f"{rest if kept else 'no checkpoint was kept'}; look at these scans, or lower "
        "config.train.learning_rate and choose another --workdir"
    )


def complete_run(run: Path) -> None:
    """Write the checksums of a finished training, unless they are there."""
    if not is_complete(run):
        write_checksums(run, "manifest.json", "metrics.jsonl", "checkpoints")
