"""What the training commands share: data, loop, checkpoints, logs and the progress bar."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

from cradl_jax.cli.interruption import Terminated, deferred
from cradl_jax.data.slices.subset import SliceSubset
from cradl_jax.devices import processes
from cradl_jax.devices.parallel import any_process
from cradl_jax.errors import Diverged, InputError
from cradl_jax.methods import initial_variables
from cradl_jax.runs.checkpoints import Checkpoints, byte_size
from cradl_jax.storage.files import require_space, write_json
from cradl_jax.storage.integrity import is_complete, write_checksums
from cradl_jax.storage.manifest import write_manifest
from cradl_jax.training.feeds import Feed, resident, room
from cradl_jax.training.loop import Progress, adam, create_state, steps_per_epoch, train
from experiments.cli.locking import exclusive
from experiments.study import data_sets, runs, settings
from experiments.study.training_log import Log

RESUME = flags.DEFINE_bool("resume", False, "Continue from the latest checkpoint.")
SAVE_SECONDS = 600  # between two checkpoints within an epoch
CHECKPOINTS = 3  # the latest, the best, and one that is being written
SHOWN = 5  # scans named in a message


def chosen_place(stream: str, data: Sequence[SliceSubset]) -> Callable[..., Feed]:
    """How slices reach the devices: all of them at the start where they fit, else as they are due.

    Args:
        stream: "auto", or "always" or "never" from disk.
        data: the slices of training and validation.
    """
    needed, free = sum(len(images) * images[:1].nbytes for images in data), room(jax.devices())
    streams = stream == "always" or (stream == "auto" and needed > free)
    streams = any(processes.all_gather(streams))
    if processes.is_first():
        how = "stream from disk" if streams else "lie on every device"
        print(
            f"slices: {needed / 1e9:.2f} GB {how}, {free / 1e9:.2f} GB fit on one (--config."
            f"data.stream={stream})",
            flush=True,
        )
    if not streams:
        return resident
    from cradl_jax.training.streaming import streamed  # grain takes a second

    return streamed


def seal_run(run: Path) -> None:
    """Write the hashes of a finished training, unless they are there."""
    if not is_complete(run):
        write_checksums(run, "manifest.json", "metrics.jsonl", "checkpoints")


@exclusive("training of {}, seed {seed}")
def fit(config: ConfigDict, workdir: Path, method: str, resume: bool) -> None:
    """Train a method on the healthy slices and keep the checkpoint of smallest validation loss.

    SIGTERM or Ctrl-C ends it after the chunk of steps that it is at, once that is saved.

    Raises:
        InputError: the run exists and `resume` is false, or it is of other settings or data.
    """
    model = settings.network(config, method)
    objective = settings.objective(config, method, model)
    how = settings.of_method(config, method).train
    healthy = next(iter(data_sets.agreed_stores(config, workdir).values()))
    data = [SliceSubset(healthy.images, healthy.rows(split)) for split in ("train", "val")]
    steps = steps_per_epoch(len(data[0]), how.batch_size)
    total = steps * how.epochs
    warmup = how.warmup_epochs * steps
    optimizer = adam(how.learning_rate, how.weight_decay, warmup, total, how.annealing)
    state = create_state(initial_variables(model, config.seed, config.data.size), optimizer)
    run = runs.folder(workdir, config.seed, method)
    about = settings.of_run(config, method), healthy.manifest["fingerprint"]
    processes.broadcast_from_first(lambda: write_manifest(run, *about))

    with Checkpoints(run) as checkpoints:
        done = checkpoints.latest_step() or 0
        if done and not resume:
            raise InputError(f"{run}: already holds checkpoints; add --resume to continue")
        if done < total:
            state = checkpoints.latest(state) if done else state
            missing = (CHECKPOINTS - len(checkpoints.steps())) * byte_size(state)
            processes.broadcast_from_first(lambda: require_space(run, missing, "the checkpoints"))
            progress = train(
                state,
                objective,
                optimizer,
                *data,
                epochs=how.epochs,
                batch_size=how.batch_size,
                seed=config.seed,
                devices=jax.devices(),
                place=chosen_place(config.data.stream, data),
            )
            bar = {"total": total, "initial": done, "unit": "step", "desc": f"train {method}"}
            bar = tqdm(**bar, disable=not processes.is_first())
            log = closing(Log(run, done)) if processes.is_first() else nullcontext()
            try:
                with bar, log as log, deferred() as stopping:
                    follow(progress, checkpoints, log, bar, how.batch_size, stopping)
            except Diverged as fault:
                batch = healthy.subjects[data[0].rows[fault.rows]]
                raise _diverged(run, fault, batch, checkpoints.latest_step()) from fault
    processes.broadcast_from_first(lambda: seal_run(run))


def follow(
    progress: Iterator[Progress],
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
    for chunk in progress:
        steps, now = int(chunk.state.step) - done, time.monotonic()
        done += steps
        speed = steps * batch_size / (now - started)
        started = now
        values = {f"train/{name}": value for name, value in chunk.train.items()}
        values["train/slices_per_second"] = speed
        if chunk.val is not None:
            values |= {f"val/{name}": value for name, value in chunk.val.items()}
            bar.set_postfix_str(
                f"loss {chunk.train['loss']:.3f}, val {chunk.val['loss']:.3f}, {speed:.0f} slices/s"
            )
        if log:
            log(done, values)
        bar.update(steps)
        stop, due = any_process(stopping(), now - saved > SAVE_SECONDS)
        if chunk.val is not None or stop or due:
            if log:
                log.flush()
            checkpoints.save(chunk.state, chunk.val and chunk.val["loss"])
            saved = now
        if stop and not stopping():
            raise Terminated
        if stop:
            return


def _diverged(run: Path, fault: Diverged, batch: Sequence[str], kept: int | None) -> InputError:
    """What to say of a training that met numbers that are not finite."""
    scans = sorted(set(batch))
    if processes.is_first():
        write_json(run / "diverged.json", {"step": fault.step, "scans": scans, "kept": kept})
    shown = ", ".join(scans[:SHOWN]) + (", ..." if len(scans) > SHOWN else "")
    return InputError(
        f"{run}: {fault}; the batch has slices of {len(scans)} scans ({shown}; all in "
        f"diverged.json); the checkpoint of step {kept} is the last one kept and finite; look at "
        "these scans, or lower config.train.learning_rate and choose another --workdir"
    )
