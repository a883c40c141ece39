"""RealNVP, a normalizing flow (equation 6, appendix D); `realnvp_fit` fits it.

Coupling blocks, each followed by a fixed random permutation of the dimensions. A block leaves the
first half of its input as it is and scales and shifts the second by functions of the first (Dinh et
al., arXiv:1605.08803).
"""

from __future__ import annotations

import math
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from cradl_jax.errors import InputError, cause

if TYPE_CHECKING:
    import distrax

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
    """Create a flow that only permutes: its output layers start at zero.

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


def like(flow: RealNVP, size: int) -> RealNVP:
    """Return a flow of as many blocks, as wide, in `size` dimensions, for its shapes."""
    blocks, hidden = flow.hidden_bias.shape
    return init(jax.random.key(0), size, blocks=blocks, hidden=hidden)


def forward(flow: RealNVP, z: Array) -> tuple[Array, Array]:
    """Return Flow(z), [..., D], and log |det dFlow / dz|, [...], of points [..., D]."""

    def apply(carry: tuple[Array, Array], block: RealNVP) -> tuple[tuple[Array, Array], None]:
        z, log_determinant = carry
        z, change = coupling(block).forward_and_log_det(z)
        return (_permute(z, block.permutations), log_determinant + change), None

    return lax.scan(apply, (z, jnp.zeros(z.shape[:-1])), flow, unroll=True)[0]


def coupling(block: RealNVP) -> distrax.Bijector:
    """Build a block without its permutation; the arrays of `block` lack the first axis.

    Raises:
        InputError: see `import_distrax`.
    """
    distrax = import_distrax()

    def conditioner(seen: Array) -> tuple[Array, Array]:
        features = jax.nn.relu(matmul(seen, block.hidden_kernel) + block.hidden_bias)
        output = matmul(features, block.output_kernel) + block.output_bias
        shift, log_scale = jnp.split(output, 2, axis=-1)
        return shift, CLAMP * jnp.tanh(log_scale / CLAMP)

    return distrax.SplitCoupling(
        split_index=block.hidden_kernel.shape[0],
        event_ndims=1,
        conditioner=conditioner,
        bijector=lambda output: distrax.ScalarAffine(shift=output[0], log_scale=output[1]),
    )


def import_distrax() -> ModuleType:
    """Import distrax, which no density but the flow needs and which takes seconds.

    With it comes the nightly TensorFlow Probability, which reaches into JAX.

    Raises:
        InputError: it is missing, or does not run with this JAX.
    """
    try:
        import distrax
    except Exception as fault:
        raise InputError(
            f"distrax: expected it to run with JAX {jax.__version__}, found {cause(fault)}; "
            "install the versions of requirements.txt, or leave the flow out with "
            "--config.flow.blocks=0"
        ) from fault
    return distrax


@jax.custom_vjp
def _permute(z: Array, order: Array) -> Array:
    """Return z[..., order]; the gradient gathers too, where the automatic one scatters slowly."""
    return _take(z, order)


_permute.defvjp(
    lambda z, order: (_permute(z, order), order),
    lambda order, gradient: (_permute(gradient, jnp.argsort(order)), None),
)


@jax.custom_batching.custom_vmap
def _take(z: Array, order: Array) -> Array:
    """Return z[..., order] by one index into all points.

    XLA's gather of columns transposes them twice.
    """
    *leading, size = z.shape
    first = size * jnp.arange(math.prod(leading)).reshape(*leading, 1)
    at = z.ravel().at[first + order]
    return at.get(mode="promise_in_bounds", wrap_negative_indices=False)


@_take.def_vmap
def _take_from_batch(_, mapped: list[bool], z: Array, order: Array) -> tuple[Array, bool]:
    """Treat a batch as one more leading axis."""
    assert mapped == [True, False], "points are mapped, their order is not"
    return _take(z, order), True


@jax.jit
def log_prob(flow: RealNVP, z: Array) -> Array:
    """Return log p(z) of points [N, D], [N]: standard normal in the latent space (equation 6).

    It is finite with finite gradients far from the data.
    """

    def of_point(point: Array) -> Array:
        latent, log_determinant = forward(flow, point)
        return _normal_log_prob(latent).sum() + log_determinant

    return lax.map(of_point, z, batch_size=BATCH)


def _normal_log_prob(x: Array) -> Array:
    """Return log N(x; 0, 1), beyond `FAR` its tangent: float32 cannot hold such squares."""
    distance = jnp.abs(x)
    near = jnp.minimum(distance, FAR)
    return -(near * (2 * distance - near) + jnp.log(2 * jnp.pi)) / 2
