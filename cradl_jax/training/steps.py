"""Pure per-device steps: the state of a training, its optimizer, and chunks of steps.

Every function that is built here runs on the axis `AXIS`. Randomness is
`fold_in(fold_in(key, step), position in the global batch)`: a run on N devices equals the run on
one.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from cradl_jax.devices.parallel import AXIS
from cradl_jax.objectives import Objective, Variables


@flax.struct.dataclass
class TrainState:
    """All that training changes.

    Attributes:
        step: number of steps done.
        variables: `params`, `batch_stats`, and what a network keeps as it is, if anything.
        optimizer: the optimizer's own state.
    """

    step: Array
    variables: Variables
    optimizer: Any


def create_state(variables: Variables, optimizer: optax.GradientTransformation) -> TrainState:
    """Return the state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), variables, optimizer.init(variables["params"]))


@functools.lru_cache
def adam(
    learning_rate: float,
    weight_decay: float,
    warmup_steps: int,
    total_steps: int,
    annealing: bool = True,
) -> optax.GradientTransformation:
    """Return Adam with linear warm-up, cosine annealing to 0 and L2 weight decay (Section 4.3).

    The decay is coupled; biases and batch-normalization parameters are not decayed. Without
    `annealing` the learning rate stays after the warm-up (Section 4.4 names no schedule for the
    VAEs). The same arguments give the same optimizer.
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


def train_step(objective: Objective, optimizer: optax.GradientTransformation) -> Callable:
    """Build a step `(state, images [n, H, W], key) -> (state, terms)`."""

    def step(state: TrainState, images: Array, key: Array):
        keys = _image_keys(jax.random.fold_in(key, state.step), len(images))

        def loss_of(params):
            return objective({**state.variables, "params": params}, images, keys, True)

        params = state.variables["params"]
        (loss, (stats, terms)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        grads, terms = lax.pmean((grads, {"loss": loss, **terms}), AXIS)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, params)
        trained = {"params": optax.apply_updates(params, updates), "batch_stats": stats}
        variables = {**state.variables, **trained}
        return TrainState(state.step + 1, variables, optimizer_state), terms

    return step


def eval_step(objective: Objective) -> Callable:
    """Build an evaluation `(variables, images [n, H, W], key) -> terms`."""

    def step(variables: Variables, images: Array, key: Array):
        loss, (_, terms) = objective(variables, images, _image_keys(key, len(images)), False)
        return lax.pmean({"loss": loss, **terms}, AXIS)

    return step


def _image_keys(key: Array, count: int) -> Array:
    """Return a key for each of this device's `count` images, by position in the global batch."""
    positions = lax.axis_index(AXIS) * count + jnp.arange(count)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, positions)


@functools.lru_cache
def train_chunk(objective: Objective, optimizer: optax.GradientTransformation) -> Callable:
    """Build training steps `(state, data [M, H, W], rows [S, n], key) -> (state, terms, finite)`.

    The terms are means over the steps. What is not finite after one step is so after all later
    ones, so that `finite`, a look at the last state, is enough for gradients.
    """
    step = train_step(objective, optimizer)

    def run(state: TrainState, data: Array, rows: Array, key: Array):
        state, terms = lax.scan(lambda s, r: step(s, data[r], key), state, rows)
        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]
        return state, jax.tree.map(jnp.mean, terms), jnp.stack(finite).all()

    return run


@functools.lru_cache
def eval_chunk(objective: Objective) -> Callable:
    """Build an evaluation of batches from number `first` on.

    It is `(variables, data [M, H, W], rows [S, n], first, key) -> terms`, [S] each.
    """
    step = eval_step(objective)

    def run(variables: Variables, data: Array, rows: Array, first: int, key: Array):
        def body(index, r):
            return index + 1, step(variables, data[r], jax.random.fold_in(key, index))

        return lax.scan(body, first, rows)[1]

    return run
