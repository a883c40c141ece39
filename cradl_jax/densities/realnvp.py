"""RealNVP, a normalizing flow (equation 6, appendix D; Dinh et al., arXiv:1605.08803).

Coupling blocks, each followed by a fixed random permutation of the dimensions. A block leaves the
first half of its input as it is and scales and shifts the second by functions of the first.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from cradl_jax.devices.parallel import AXIS, Devices, over_devices, replicate, share
from cradl_jax.errors import InputError

CLAMP = 2.0  # bound of the log-scales
BATCH = 1024  # rows scored at once
FAR = 1e10  # standard deviations in the latent space

matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)  # no TF32 or bfloat16


class RealNVP(NamedTuple):
    """The B blocks' conditioners, Linear, ReLU, Linear, and permutations, in D dimensions.

    The conditioner sees D // 2 dimensions and returns shift and log-scale of the other R.

    Attributes:
        permutations: order of the dimensions after each block, [B, D].
        hidden_kernel: [B, D // 2, H].
        hidden_bias: [B, H].
        output_kernel: [B, H, 2 R].
        output_bias: [B, 2 R].
    """

    permutations: Array
    hidden_kernel: Array
    hidden_bias: Array
    output_kernel: Array
    output_bias: Array


def init(key: Array, size: int, *, blocks: int = 8, hidden: int = 512) -> RealNVP:
    """A flow that only permutes: its output layers start at zero.

    Args:
        key: of the permutations and the hidden layers.
        size: D, at least 2.
        blocks: B, number of coupling blocks.
        hidden: H, width of the conditioners.
    """
    seen = size // 2
    permuting, weighting = jax.random.split(key)
    permutations = jax.vmap(partial(jax.random.permutation, x=size))(
        jax.random.split(permuting, blocks)
    )
    kernel = jax.nn.initializers.he_normal(batch_axis=0)(weighting, (blocks, seen, hidden))
    outputs = 2 * (size - seen)
    return RealNVP(
        permutations,
        kernel,
        jnp.zeros((blocks, hidden)),
        jnp.zeros((blocks, hidden, outputs)),
        jnp.zeros((blocks, outputs)),
    )


def forward(flow: RealNVP, z: Array) -> tuple[Array, Array]:
    """Flow(z) and log |det dFlow / dz| of points [..., D], [..., D] and [...]."""

    def through(carry: tuple[Array, Array], block: RealNVP) -> tuple[tuple[Array, Array], None]:
        z, log_determinant = carry
        z, change = _bijector(block).forward_and_log_det(z)
        return (z, log_determinant + change), None

    return lax.scan(through, (z, jnp.zeros(z.shape[:-1])), flow, unroll=True)[0]


def inverse(flow: RealNVP, latent: Array) -> Array:
    """The z whose Flow(z) is `latent`, both [..., D]."""

    def back(latent: Array, block: RealNVP) -> tuple[Array, None]:
        return _bijector(block).inverse(latent), None

    return lax.scan(back, latent, flow, reverse=True)[0]


def _bijector(block: RealNVP) -> distrax.Bijector:
    """A coupling block, then its permutation; the arrays of `block` lack the first axis."""

    def conditioner(seen: Array) -> tuple[Array, Array]:
        features = jax.nn.relu(matmul(seen, block.hidden_kernel) + block.hidden_bias)
        output = matmul(features, block.output_kernel) + block.output_bias
        shift, log_scale = jnp.split(output, 2, axis=-1)
        return shift, CLAMP * jnp.tanh(log_scale / CLAMP)

    coupling = distrax.SplitCoupling(
        split_index=block.hidden_kernel.shape[0],
        event_ndims=1,
        conditioner=conditioner,
        bijector=lambda given: distrax.ScalarAffine(shift=given[0], log_scale=given[1]),
    )
    permutation = distrax.Lambda(
        forward=lambda z: _permuted(z, block.permutations),
        inverse=lambda z: _permuted(z, jnp.argsort(block.permutations)),
        forward_log_det_jacobian=lambda z: jnp.zeros(z.shape[:-1]),
        inverse_log_det_jacobian=lambda z: jnp.zeros(z.shape[:-1]),
        event_ndims_in=1,
        is_constant_jacobian=True,
    )
    return distrax.Chain([permutation, coupling])  # the last one is applied first


@jax.custom_vjp
def _permuted(z: Array, order: Array) -> Array:
    """z[..., order]; the gradient gathers as well, where the automatic one is a slow scatter."""
    return _taken(z, order)


_permuted.defvjp(
    lambda z, order: (_permuted(z, order), order),
    lambda order, gradient: (_permuted(gradient, jnp.argsort(order)), None),
)


@jax.custom_batching.custom_vmap
def _taken(z: Array, order: Array) -> Array:
    """z[..., order] by one index into all points: XLA's gather of columns transposes them twice."""
    *leading, size = z.shape
    first = size * jnp.arange(math.prod(leading)).reshape(*leading, 1)
    at = z.ravel().at[first + order]
    return at.get(mode="promise_in_bounds", wrap_negative_indices=False)


@_taken.def_vmap
def _taken_of_batch(_, mapped: list[bool], z: Array, order: Array) -> tuple[Array, bool]:
    """A batch is one more leading axis."""
    assert mapped == [True, False], "points are mapped, their order is not"
    return _taken(z, order), True


@jax.jit
def log_prob(flow: RealNVP, z: Array) -> Array:
    """log p(z) of points [N, D], [N]: a standard normal in the latent space (equation 6).

    Finite with finite gradients far from the data.
    """

    def of_point(point: Array) -> Array:
        latent, log_determinant = forward(flow, point)
        return _normal_log_prob(latent).sum() + log_determinant

    return lax.map(of_point, z, batch_size=BATCH)


def _normal_log_prob(x: Array) -> Array:
    """log N(x; 0, 1), which goes on as its tangent beyond `FAR`: float32 holds no such squares."""
    distance = jnp.abs(x)
    near = jnp.minimum(distance, FAR)
    return -(near * (2 * distance - near) + jnp.log(2 * jnp.pi)) / 2


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
    progress: Callable[[dict[str, float]], None] | None = None,
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
        devices: of this process, to share out each batch on; None: the first.
        progress: called after every epoch with its `train` and `val` loss.

    Returns:
        The flow of the epoch with the smallest validation loss, and the mean negative
        log-likelihoods of every epoch: `train` (as met in training) and `val`, [epochs].

    Raises:
        InputError: points of one dimension, a batch that does not divide over the devices, or a
            loss that is not finite, with its epoch.
    """
    z_train, z_val = (jnp.asarray(z, jnp.float32) for z in (z_train, z_val))
    size = z_train.shape[1]
    if size < 2:
        raise InputError(f"RealNVP needs representations of at least 2 dimensions, found {size}")
    devices = (devices or jax.local_devices()[:1])[: len(z_train)]
    if len(z_train) < batch_size:
        batch_size = len(z_train) // len(devices) * len(devices)
    decay_steps = decay_epochs * (len(z_train) // batch_size)
    optimizer = _adam(learning_rate, decay_steps, weight_decay, clip)
    initial, training = jax.random.split(key)
    flow = init(initial, size, blocks=blocks, hidden=hidden)
    state = optimizer.init(list(flow[1:]))
    best, smallest, history = flow, np.inf, {"train": [], "val": []}
    run = over_devices(_epoch(optimizer, batch_size), devices, (0, *[None] * 5), None)
    first = np.arange(0, batch_size, share(batch_size, devices))  # of each device in a batch
    flow, state, z_train, z_val = replicate((flow, state, z_train, z_val), devices)
    for number, epoch_key in enumerate(jax.random.split(training, epochs), start=1):
        flow, state, train_loss = run(first, epoch_key, flow, state, z_train, noise)
        losses = {"train": float(train_loss), "val": -float(log_prob(flow, z_val).mean())}
        if not np.isfinite(list(losses.values())).all():
            raise InputError(
                f"RealNVP: expected finite losses, found {losses} in epoch {number} of {epochs}; "
                "lower the flow's learning rate, or check the representations for extreme values"
            )
        if losses["val"] < smallest:
            best, smallest = flow, losses["val"]
        for name, loss in losses.items():
            history[name].append(loss)
        if progress is not None:
            progress(losses)
    return best, {name: np.array(losses) for name, losses in history.items()}


@lru_cache
def _adam(
    learning_rate: float, decay_steps: int, weight_decay: float, clip: float
) -> optax.GradientTransformation:
    """As `fit` describes it."""
    schedule = optax.exponential_decay(learning_rate, decay_steps, 0.1, staircase=True)
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(schedule),
    )


@lru_cache
def _epoch(optimizer: optax.GradientTransformation, batch_size: int) -> Callable:
    """An epoch `(first, key, flow, state, z [N, D], noise) -> (flow, state, mean loss)`.

    Adam steps over all whole batches of the shuffled points; a device has the points of a batch
    from the number `first` on.
    """

    def epoch(
        first: Array, key: Array, flow: RealNVP, state: optax.OptState, z: Array, noise: float
    ) -> tuple[RealNVP, optax.OptState, Array]:
        steps, part = len(z) // batch_size, batch_size // lax.axis_size(AXIS)
        shuffling, noising = jax.random.split(key)
        order = jax.random.permutation(shuffling, len(z))[: steps * batch_size]
        permutations, *weights = flow

        def own(batch: Array) -> Array:
            return lax.dynamic_slice_in_dim(batch, first, part)

        def loss(weights: list[Array], batch: Array) -> Array:
            return -log_prob(RealNVP(permutations, *weights), batch).mean()

        def step(carry: tuple, given: tuple[Array, Array]) -> tuple[tuple, Array]:
            weights, state = carry
            rows, key = given
            shift = noise * jax.random.normal(key, (batch_size, z.shape[1]))
            batch = z[own(rows)] + own(shift)
            value, gradient = lax.pmean(jax.value_and_grad(loss)(weights, batch), AXIS)
            updates, state = optimizer.update(gradient, state, weights)
            return (optax.apply_updates(weights, updates), state), value

        batches = order.reshape(steps, batch_size), jax.random.split(noising, steps)
        (weights, state), losses = lax.scan(step, (weights, state), batches)
        return RealNVP(permutations, *weights), state, losses.mean()

    return epoch
