"""Training: a state, pure train and eval steps, and the loop that drives any of the models.

A chunk of steps runs inside `lax.scan`, on slices that a feed brings (`cradl_jax.training.feeds`).
Randomness is `fold_in(fold_in(key, step), position in the global
batch)`: a run on N devices equals the run on one.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from cradl_jax.devices.parallel import AXIS, Devices, over_devices, replicate, share
from cradl_jax.errors import Diverged, InputError
from cradl_jax.objectives import Objective, Variables
from cradl_jax.training.feeds import Feed, Plan, Schedule, resident

LONGEST_CHUNK = 25  # steps between two looks from the host
CHUNK_BYTES = 1 << 28  # of slices that a chunk brings with it


@flax.struct.dataclass
class TrainState:
    """All that training changes.

    Attributes:
        step: number of steps done.
        variables: `params` and `batch_stats`.
        optimizer: the optimizer's own state.
    """

    step: Array
    variables: Variables
    optimizer: Any


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


@functools.lru_cache
def adam(
    learning_rate: float,
    weight_decay: float,
    warmup_steps: int,
    total_steps: int,
    annealing: bool = True,
) -> optax.GradientTransformation:
    """Adam with linear warm-up, cosine annealing to 0 and L2 (coupled) weight decay (Section 4.3).

    Biases and batch-normalization parameters are not decayed. Without `annealing` the learning
    rate stays after the warm-up (Section 4.4 names no schedule for the VAEs). The same arguments
    give the same optimizer.
    """
    after = max(total_steps - warmup_steps, 1)
    schedule = optax.join_schedules(
        [
            optax.linear_schedule(0.0, learning_rate, warmup_steps),
            optax.cosine_decay_schedule(learning_rate, after)
            if annealing
            else optax.constant_schedule(learning_rate),
        ],
        [warmup_steps],
    )

    def is_kernel(params):
        return jax.tree.map(lambda p: p.ndim > 1, params)

    return optax.chain(
        optax.add_decayed_weights(weight_decay, is_kernel),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(schedule),
    )


def create_state(variables: Variables, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), variables, optimizer.init(variables["params"]))


def _image_keys(key: Array, count: int) -> Array:
    """A key for each of this device's `count` images, by their position in the global batch."""
    positions = lax.axis_index(AXIS) * count + jnp.arange(count)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, positions)


def train_step(objective: Objective, optimizer: optax.GradientTransformation):
    """A per-device step `(state, images [n, H, W], key) -> (state, terms)` on the axis `AXIS`."""

    def step(state: TrainState, images: Array, key: Array):
        keys = _image_keys(jax.random.fold_in(key, state.step), len(images))

        def loss_of(params):
            return objective({**state.variables, "params": params}, images, keys, True)

        params = state.variables["params"]
        (loss, (stats, terms)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        grads, terms = lax.pmean((grads, {"loss": loss, **terms}), AXIS)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, params)
        variables = {"params": optax.apply_updates(params, updates), "batch_stats": stats}
        return TrainState(state.step + 1, variables, optimizer_state), terms

    return step


def eval_step(objective: Objective):
    """A per-device evaluation `(variables, images, key) -> terms` on the axis `AXIS`."""

    def step(variables: Variables, images: Array, key: Array):
        loss, (_, terms) = objective(variables, images, _image_keys(key, len(images)), False)
        return lax.pmean({"loss": loss, **terms}, AXIS)

    return step


@functools.lru_cache
def _chunk(objective: Objective, optimizer: optax.GradientTransformation):
    """Training steps: `(state, data [M, H, W], rows [S, n], key) -> (state, mean terms, finite)`.

    What is not finite at one step is so at all later ones, so that a look at the last state is
    enough for gradients.
    """
    step = train_step(objective, optimizer)

    def run(state: TrainState, data: Array, rows: Array, key: Array):
        state, terms = lax.scan(lambda s, r: step(s, data[r], key), state, rows)
        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]
        return state, jax.tree.map(jnp.mean, terms), jnp.stack(finite).all()

    return run


def _checked(run_chunk):
    """`run_chunk` without its last result, which raises `Diverged` where that is false."""

    def run(state: TrainState, data: Array, rows: np.ndarray, key: Array, batches: np.ndarray):
        after, terms, finite = run_chunk(state, data, rows, key)
        terms = jax.tree.map(float, terms)
        if finite and np.isfinite(list(terms.values())).all():
            return after, terms
        for number in range(rows.shape[1]):  # which step was it? One by one, from the state before
            state, terms, finite = run_chunk(state, data, rows[:, number : number + 1], key)
            loss = float(terms["loss"])
            if not (finite and np.isfinite(loss)):
                break
        found = f"a loss of {loss}" if not np.isfinite(loss) else "a gradient that is not"
        raise Diverged(int(state.step), batches[number], found)

    return run


@functools.lru_cache
def _evaluation(objective: Objective):
    """Validation batches from number `first` on: `(variables, data, rows, first, key) -> terms`."""
    step = eval_step(objective)

    def run(variables: Variables, data: Array, rows: Array, first: int, key: Array):
        def body(index, r):
            return index + 1, step(variables, data[r], jax.random.fold_in(key, index))

        return lax.scan(body, first, rows)[1]

    return run


def steps_per_epoch(slices: int, batch_size: int) -> int:
    """Full batches in `slices` training slices.

    Raises:
        InputError: there is not one.
    """
    if slices < batch_size:
        raise InputError(
            f"batch size {batch_size} is larger than the training set of {slices} slices; "
            "lower config.train.batch_size or add scans"
        )
    return slices // batch_size


def _val_plan(slices: int, batch_size: int, devices: int, slice_bytes: int) -> Plan:
    """Rows of the full validation batches; a smaller batch where there is not one."""
    size = min(batch_size, slices // devices * devices)
    if not size:
        raise InputError(
            f"validation: expected a slice for each of {devices} devices, found {slices}; "
            "add healthy scans to the split val"
        )
    batches = np.arange(slices // size * size).reshape(-1, size)
    length = _chunk_length(len(batches), size * slice_bytes)
    return [batches[first : first + length] for first in range(0, len(batches), length)]


def _chunk_length(steps: int, step_bytes: int) -> int:
    """Of chunks none of which is longer or has more bytes than it should.

    They are equal, since every length is compiled, unless that made them less than half as long.
    """
    longest = max(min(LONGEST_CHUNK, CHUNK_BYTES // max(step_bytes, 1), steps), 1)
    equal = max(n for n in range(1, longest + 1) if steps % n == 0)
    return equal if 2 * equal >= longest else -(-steps // -(-steps // longest))


def train(
    state: TrainState,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    train_images: np.ndarray,
    val_images: np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    devices: Devices,
    place: Callable[[np.ndarray, Devices], Feed] = resident,
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
        devices: to share out each batch on, those of all processes.
        place: makes a feed of images, on which the result does not depend: `feeds.resident`, or
            `streaming.streamed`, for which images may be memory-mapped.

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

    steps_of = over_devices(_chunk(objective, optimizer), devices, (None, 0, 0, None), None)
    run_chunk = _checked(steps_of)
    evaluate = over_devices(_evaluation(objective), devices, (None, 0, 0, None, None), None)

    def validate(state: TrainState) -> dict[str, float]:
        chunks, first, terms = val_feed.chunks(val_plan), 0, []
        for data, rows in chunks:
            terms.append(jax.device_get(evaluate(state.variables, data, rows, first, val_key)))
            first += rows.shape[1]
        val = jax.tree.map(lambda *parts: float(np.mean(np.concatenate(parts))), *terms)
        if not np.isfinite(val["loss"]):
            raise Diverged(int(state.step), np.arange(0), f"validation {val['loss']}")
        return val

    state = replicate(state, devices)
    for batches, (data, rows) in zip(schedule, train_feed.chunks(schedule), strict=True):
        state, terms = run_chunk(state, data, rows, train_key, batches)
        yield Progress(state, terms, None if int(state.step) % steps else validate(state))
