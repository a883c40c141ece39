"""Maximum-likelihood training of RealNVP (appendix D)."""

from collections.abc import Callable, Iterator
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from cradl_jax.densities.realnvp import RealNVP, init, log_prob
from cradl_jax.devices.parallel import AXIS, Devices, over_devices, replicate, share
from cradl_jax.errors import InputError

Losses = dict[str, float]  # `train` and `val`, mean negative log-likelihoods of an epoch


def fit(
    key: Array,
    z_train: Array,
    z_val: Array,
    *,
    blocks: int = 8,
    hidden: int = 512,
    epochs: int = 60,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    decay_epochs: int = 20,
    weight_decay: float = 1e-4,
    noise: float = 1e-3,
    clip: float = 5.0,
    devices: Devices | None = None,
    progress: Callable[[Losses], None] = lambda losses: None,
) -> tuple[RealNVP, dict[str, np.ndarray]]:
    """Maximize the likelihood of `z_train` by Adam; the defaults are those of appendix D.

    Args:
        key: of the initial weights, the order of the points and the noise.
        z_train: points to fit, [N, D].
        z_val: points to choose the epoch by, [M, D].
        blocks: number of coupling blocks.
        hidden: width of the conditioners.
        epochs: passes over `z_train`.
        batch_size: points a step, over all devices.
        learning_rate: of Adam.
        decay_epochs: the learning rate falls tenfold every so many epochs.
        weight_decay: L2 penalty, added to the gradient before Adam sees it.
        noise: standard deviation of the Gaussian noise added to training points.
        clip: largest norm of the whole gradient.
        devices: of this process, to split each batch over; None: the first.
        progress: called after every epoch with its `train` and `val` loss.

    Returns:
        The flow of the epoch with the smallest validation loss, and the mean negative
        log-likelihoods of every epoch: `train` (as met in training) and `val`, [epochs].

    Raises:
        InputError: points of one dimension, a batch that does not divide over the devices, or a
            loss that is not finite, with its epoch.
    """
    z_train, z_val = (jnp.asarray(z, jnp.float32) for z in (z_train, z_val))
    points, size = z_train.shape
    if size < 2:
        raise InputError(f"RealNVP needs representations of at least 2 dimensions, found {size}")
    devices = (devices or jax.local_devices()[:1])[:points]
    if points < batch_size:
        batch_size = points // len(devices) * len(devices)
    initial_key, training_key = jax.random.split(key)
    best, smallest, history = init(initial_key, size, blocks=blocks, hidden=hidden), np.inf, []
    optimizer = _adam(learning_rate, decay_epochs * (points // batch_size), weight_decay, clip)
    keys = jax.random.split(training_key, epochs)
    for flow, losses in _train(best, optimizer, keys, z_train, z_val, batch_size, noise, devices):
        if losses["val"] < smallest:
            best, smallest = flow, losses["val"]
        history.append(losses)
        progress(losses)
    return best, {name: np.array([loss[name] for loss in history]) for name in ("train", "val")}


def _train(
    flow: RealNVP,
    optimizer: optax.GradientTransformation,
    keys: Array,
    z_train: Array,
    z_val: Array,
    batch_size: int,
    noise: float,
    devices: Devices,
) -> Iterator[tuple[RealNVP, Losses]]:
    """Yield the flow and its losses after an epoch with each of `keys`."""
    state = optimizer.init(list(flow[1:]))
    run_epoch = over_devices(_epoch(optimizer, batch_size), devices, (0, *[None] * 5), None)
    first = np.arange(0, batch_size, share(batch_size, devices))  # of each device in a batch
    flow, state, z_train, z_val = replicate((flow, state, z_train, z_val), devices)
    for number, key in enumerate(keys, start=1):
        flow, state, train_loss = run_epoch(first, key, flow, state, z_train, noise)
        losses = {"train": float(train_loss), "val": -float(log_prob(flow, z_val).mean())}
        if not np.isfinite(list(losses.values())).all():
            raise InputError(
                f"RealNVP: expected finite losses, found {losses} in epoch {number} of "
                f"{len(keys)}; lower the flow's learning rate, or check the representations for "
                "extreme values"
            )
        yield flow, losses


@lru_cache
def _adam(
    learning_rate: float, decay_steps: int, weight_decay: float, clip: float
) -> optax.GradientTransformation:
    """Return the optimizer that `fit` describes."""
    schedule = optax.exponential_decay(learning_rate, decay_steps, 0.1, staircase=True)
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(schedule),
    )


@lru_cache
def _epoch(optimizer: optax.GradientTransformation, batch_size: int) -> Callable:
    """Build an epoch `(first, key, flow, state, z [N, D], noise) -> (flow, state, mean loss)`.

    Adam steps over all whole batches of the shuffled points; a device has the points of a batch
    from the number `first` on.
    """

    def epoch(
        first: Array, key: Array, flow: RealNVP, state: optax.OptState, z: Array, noise: float
    ) -> tuple[RealNVP, optax.OptState, Array]:
        steps, part = len(z) // batch_size, batch_size // lax.axis_size(AXIS)
        shuffling_key, noise_key = jax.random.split(key)
        order = jax.random.permutation(shuffling_key, len(z))[: steps * batch_size]
        permutations, *weights = flow

        def local_part(batch: Array) -> Array:
            return lax.dynamic_slice_in_dim(batch, first, part)

        def loss(weights: list[Array], batch: Array) -> Array:
            return -log_prob(RealNVP(permutations, *weights), batch).mean()

        def step(carry: tuple, inputs: tuple[Array, Array]) -> tuple[tuple, Array]:
            weights, state = carry
            rows, key = inputs
            shift = noise * jax.random.normal(key, (batch_size, z.shape[1]))
            batch = z[local_part(rows)] + local_part(shift)
            value, gradient = lax.pmean(jax.value_and_grad(loss)(weights, batch), AXIS)
            updates, state = optimizer.update(gradient, state, weights)
            return (optax.apply_updates(weights, updates), state), value

        inputs = order.reshape(steps, batch_size), jax.random.split(noise_key, steps)
        (weights, state), losses = lax.scan(step, (weights, state), inputs)
        return RealNVP(permutations, *weights), state, losses.mean()

    return epoch
