"""The loop that drives the training of any model, a chunk of steps at a time.

A chunk runs inside `lax.scan`, on slices that a feed brings (`cradl_jax.training.feeds`).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax import Array

from cradl_jax.devices.parallel import Devices, over_devices, replicate, share
from cradl_jax.errors import Diverged, InputError
from cradl_jax.objectives import Objective
from cradl_jax.training.feeds import Feed, Images, Plan, Schedule, resident
from cradl_jax.training.steps import TrainState, eval_chunk, train_chunk

LONGEST_CHUNK = 25  # steps between two looks from the host
CHUNK_BYTES = 1 << 28  # of slices that a chunk brings with it


class Progress(NamedTuple):
    """One chunk of training.

    Attributes:
        state: after the chunk.
        train: the loss and its terms, the mean over the chunk.
        val: the same on the validation slices where the chunk ends an epoch, else None.
    """

    state: TrainState
    train: dict[str, float]
    val: dict[str, float] | None


def train(
    state: TrainState,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    train_images: Images,
    val_images: Images,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    devices: Devices,
    place: Callable[[Images, Devices], Feed] = resident,
) -> Iterator[Progress]:
    """Train from `state` to the end of `epochs`, yielding after every chunk of steps.

    Each epoch draws a permutation of the training slices from (seed, epoch) and leaves out what
    does not fill a batch. The validation loss is taken at each epoch's end with augmentations
    that are the same at every epoch, so that epochs compare.

    Args:
        state: from `create_state`, or that of any chunk of the same run: what is yielded from
            there on is the same as without the interruption.
        objective: see `cradl_jax.objectives`.
        optimizer: the one that `state` was created with.
        train_images: [N, H, W] in [-1.5, 1.5].
        val_images: [V, H, W].
        epochs: in all, those before `state` included.
        batch_size: over all devices together.
        seed: of permutations and augmentations.
        devices: to split each batch over, those of all processes.
        place: makes a feed of images, on which the result does not depend: `feeds.resident`, or
            `feeds.streamed`, for which images may be memory-mapped.

    Raises:
        InputError: a batch that is too large or does not divide over the devices.
        Diverged: a loss or a gradient is not finite; nothing of that chunk is yielded.
    """
    share(batch_size, devices)
    steps = steps_per_epoch(len(train_images), batch_size)
    train_feed, val_feed = (place(images, devices) for images in (train_images, val_images))
    length = _chunk_length(steps, batch_size * train_feed.slice_bytes)
    schedule = Schedule(len(train_images), batch_size, epochs, seed, length, int(state.step))
    val_plan = _val_plan(len(val_images), batch_size, len(devices), val_feed.slice_bytes)
    train_key, val_key = jax.random.split(jax.random.key(seed))
    run_chunk = _chunk_runner(objective, optimizer, devices)
    validate = _validation(objective, val_feed, val_plan, val_key, devices)
    state = replicate(state, devices)
    for batches, (data, rows) in zip(schedule, train_feed.chunks(schedule), strict=True):
        state, terms = run_chunk(state, data, rows, train_key, batches)
        yield Progress(state, terms, None if int(state.step) % steps else validate(state))


def steps_per_epoch(slices: int, batch_size: int) -> int:
    """Return the number of full batches in `slices` training slices.

    Raises:
        InputError: there is not one.
    """
    if slices < batch_size:
        raise InputError(
            f"batch size {batch_size} is larger than the training set of {slices} slices; "
            "lower config.train.batch_size or add scans"
        )
    return slices // batch_size


def _chunk_length(steps: int, step_bytes: int) -> int:
    """Return the length of chunks none of which is longer or has more bytes than it should.

    They are equal, since every length is compiled, unless that made them less than half as long.
    """
    longest = max(min(LONGEST_CHUNK, CHUNK_BYTES // max(step_bytes, 1), steps), 1)
    equal = max(n for n in range(1, longest + 1) if steps % n == 0)
    return equal if 2 * equal >= longest else -(-steps // -(-steps // longest))


def _val_plan(slices: int, batch_size: int, devices: int, slice_bytes: int) -> Plan:
    """Return the rows of the full validation batches; a smaller batch where there is not one."""
    size = min(batch_size, slices // devices * devices)
    if not size:
        raise InputError(
            f"validation: expected a slice for each of {devices} devices, found {slices}; "
            "add healthy scans to the split val"
        )
    batches = np.arange(slices // size * size).reshape(-1, size)
    length = _chunk_length(len(batches), size * slice_bytes)
    return [batches[first : first + length] for first in range(0, len(batches), length)]


def _validation(
    objective: Objective, feed: Feed, plan: Plan, key: Array, devices: Devices
) -> Callable[[TrainState], dict[str, float]]:
    """Build `state -> terms`, means over the batches of `plan`, which raises `Diverged`."""
    evaluate = over_devices(eval_chunk(objective), devices, (None, 0, 0, None, None), None)

    def validate(state: TrainState) -> dict[str, float]:
        first, chunks = 0, []
        for data, rows in feed.chunks(plan):
            chunks.append(jax.device_get(evaluate(state.variables, data, rows, first, key)))
            first += rows.shape[1]
        terms = jax.tree.map(lambda *parts: float(np.mean(np.concatenate(parts))), *chunks)
        if not np.isfinite(terms["loss"]):
            step = int(state.step)
            raise Diverged([step], np.arange(0), f"a validation loss of {terms['loss']}")
        return terms

    return validate


def _chunk_runner(
    objective: Objective, optimizer: optax.GradientTransformation, devices: Devices
) -> Callable:
    """Build `(state, data, rows, key, batches) -> (state, terms)`, which raises `Diverged`."""
    run_chunk = over_devices(train_chunk(objective, optimizer), devices, (None, 0, 0, None), None)

    def run(state: TrainState, data: Array, rows: np.ndarray, key: Array, batches: np.ndarray):
        after, terms, finite = run_chunk(state, data, rows, key)
        terms = jax.tree.map(float, terms)
        if problem := _not_finite(terms, finite):
            raise _locate(run_chunk, problem, state, data, rows, key, batches)
        return after, terms

    return run


def _not_finite(terms: Mapping[str, Array | float], finite: Array) -> str | None:
    """Say which term is not finite, the loss first, or that a gradient is not; None if all are."""
    for name in ("loss", *terms):
        if not np.isfinite(value := float(terms[name])):
            return f"a {name} of {value}"
    return None if finite else "a gradient that is not"


def _locate(
    run_chunk: Callable,
    problem: str,
    state: TrainState,
    data: Array,
    rows: np.ndarray,
    key: Array,
    batches: np.ndarray,
) -> Diverged:
    """Repeat a chunk step by step from the state before it, and say which step fails and how.

    Where none does, the step is unknown: every step and batch of the chunk is named.
    """
    first, count = int(state.step) + 1, len(batches)
    for number in range(count):
        state, terms, finite = run_chunk(state, data, rows[:, number : number + 1], key)
        if repeated := _not_finite(terms, finite):
            return Diverged([first + number], batches[number], repeated)
    problem += ", and only finite ones when these steps were repeated one by one"
    return Diverged(range(first, first + count), batches.ravel(), problem)
