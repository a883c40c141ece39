"""The 4x4 convolutions of Table 10, each in the form that its hardware runs fastest.

XLA's CPU convolution is slow inside `lax.scan`, where training steps run. There a stride-2
convolution becomes products of matrices; elsewhere the native convolution is used.
`jax.lax.platform_dependent` chooses when the step is lowered. A convolution of one channel is a
product of patches everywhere: cuDNN has no fast form of it. All forms compute the same sums.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

LAYOUT = ("NHWC", "HWIO", "NHWC")


def down_native(x: Array, kernel: Array) -> Array:
    """Stride-2 convolution, padding 1: [N, H, W, C] -> [N, H/2, W/2, O]; `kernel` [4, 4, C, O]."""
    return lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=LAYOUT)


def down_winograd(x: Array, kernel: Array) -> Array:
    """`down_native` in nine matrix products instead of sixteen; H and W are multiples of 4.

    Over blocks of 2x2 pixels the convolution has 2x2 taps g and stride 1. Along one axis, two
    outputs side by side see three blocks d:

        d0 g0 + d1 g1 = (d0 - d1) g0 + d1 (g0 + g1)
        d1 g0 + d2 g1 = d1 (g0 + g1) + (d2 - d1) g1

    Three products are enough, and nine along both axes: Winograd's minimal filtering F(2x2, 2x2)
    (Lavin and Gray, arXiv:1509.09308).
    """
    n, h, w, c = x.shape
    blocks = _blocks(x).swapaxes(2, 3)  # [n, h/2 + 1, w/2 + 1, 2, 2, c]: runs of c are vectorized
    taps = kernel.reshape(2, 2, 2, 2, c, -1).transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 4 * c, -1)

    def product(d: Array, g: Array) -> Array:
        return (d.reshape(-1, 4 * c) @ g).reshape(n, h // 4, w // 4, -1)

    rows = [
        _outputs(
            [product(d, g) for d, g in zip(_differences(row, 2), _sums(tap, 0), strict=True)], 3
        )
        for row, tap in zip(_differences(blocks, 1), _sums(taps, 0), strict=True)
    ]
    return _outputs(rows, 2).reshape(n, h // 2, w // 2, -1)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _differences(blocks: Array, axis: int) -> list[Array]:
    """d0 - d1, d1, d2 - d1 of every second block d1 along an axis, and its neighbors d0 and d2.

    The gradient is written out, since that of slices with strides visits pixels one by one.
    """
    before, after = blocks.shape[:axis], blocks.shape[axis + 1 :]
    count = blocks.shape[axis] // 2
    pairs = _extend(blocks, axis, 0, 1).reshape(*before, count + 1, 2, *after)
    even, odd = jnp.unstack(pairs, axis=axis + 1)
    d0, d2 = (lax.slice_in_dim(even, i, count + i, axis=axis) for i in (0, 1))
    d1 = lax.slice_in_dim(odd, 0, count, axis=axis)
    return [d0 - d1, d1, d2 - d1]


def _differences_backward(axis: int, _, gradients: list[Array]) -> tuple[Array]:
    first, middle, last = gradients
    even = _extend(first, axis, 0, 1) + _extend(last, axis, 1, 0)
    odd = _extend(middle - first - last, axis, 0, 1)
    before, after = even.shape[:axis], even.shape[axis + 1 :]
    blocks = jnp.stack([even, odd], axis + 1).reshape(*before, 2 * even.shape[axis], *after)
    return (lax.slice_in_dim(blocks, 0, -1, axis=axis),)


def _extend(x: Array, axis: int, low: int, high: int) -> Array:
    """Zeros before and after `x` along an axis."""
    return jnp.pad(x, [(low, high) if a == axis else (0, 0) for a in range(x.ndim)])


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _sums(pair: Array, axis: int) -> list[Array]:
    """g0, g0 + g1, g1."""
    first, last = jnp.unstack(pair, axis=axis)
    return [first, first + last, last]


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _outputs(products: list[Array], axis: int) -> Array:
    """Of three products the two outputs, side by side along a new axis: the adjoint of `_sums`."""
    first, middle, last = products
    return jnp.stack([first + middle, middle + last], axis)


_differences.defvjp(lambda x, axis: (_differences(x, axis), None), _differences_backward)
_sums.defvjp(lambda x, axis: (_sums(x, axis), None), lambda axis, _, g: (_outputs(g, axis),))
_outputs.defvjp(lambda x, axis: (_outputs(x, axis), None), lambda axis, _, g: (_sums(g, axis),))


def down_patches(x: Array, kernel: Array) -> Array:
    """`down_native` of one channel in one product: Winograd's nine would be too thin to be fast."""
    n, h, w, _ = x.shape
    blocks = _blocks(x)[..., 0]
    corners = [blocks[:, i : i + h // 2, :, j : j + w // 2] for i in (0, 1) for j in (0, 1)]
    patches = jnp.stack(corners).reshape(2, 2, n, h // 2, 2, w // 2, 2)
    patches = patches.transpose(2, 3, 5, 0, 4, 1, 6).reshape(-1, 16)
    return (patches @ kernel.reshape(16, -1)).reshape(n, h // 2, w // 2, -1)


def _blocks(x: Array) -> Array:
    """Images padded by 1, in blocks of 2x2 pixels, [N, H/2 + 1, 2, W/2 + 1, 2, C]."""
    n, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return padded.reshape(n, h // 2 + 1, 2, w // 2 + 1, 2, c)


def up_native(x: Array, kernel: Array) -> Array:
    """Transposed convolution, stride 2, padding 1: [N, H, W, C] -> [N, 2H, 2W, O].

    `kernel` [4, 4, O, C] is that of the convolution which this is the adjoint of.
    """
    return _adjoint(down_native, x, kernel)


def up_winograd(x: Array, kernel: Array) -> Array:
    """`up_native` in nine matrix products: the adjoint of `down_winograd`; H and W are even."""
    return _adjoint(down_winograd, x, kernel)


def up_patches(x: Array, kernel: Array) -> Array:
    """`up_native` to one channel: the adjoint of `down_patches`."""
    return _adjoint(down_patches, x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _adjoint(down: Callable[[Array, Array], Array], x: Array, kernel: Array) -> Array:
    """The adjoint of `down`; its gradient is written out as that of `down`.

    cuDNN has fast kernels for the latter, which XLA does not find in the automatic gradient.
    """
    n, h, w, _ = x.shape
    anything = jnp.zeros((n, 2 * h, 2 * w, kernel.shape[2]), x.dtype)  # `down` is linear in it
    _, pullback = jax.vjp(lambda y: down(y, kernel), anything)
    return pullback(x)[0]


def _adjoint_forward(down, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _adjoint(down, x, kernel), (x, kernel)


def _adjoint_backward(down, inputs: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = inputs
    of_x, pullback = jax.vjp(lambda kernel: down(gradient, kernel), kernel)
    return of_x, pullback(x)[0]


_adjoint.defvjp(_adjoint_forward, _adjoint_backward)


class _Conv(nn.Module):
    """Parameters shared by the four layers.

    A transposed convolution's kernel is that of the convolution which it is the adjoint of.
    A convolution that batch normalization follows needs no bias: its gradient is exactly zero,
    and Adam would turn the rounding noise into a random walk.
    """

    features: int
    dtype: jnp.dtype = jnp.float32
    use_bias: bool = True

    def kernel(self, before: int, after: int, fan_in: int) -> Array:
        init = nn.initializers.normal(fan_in**-0.5)
        return self.param("kernel", init, (4, 4, before, after)).astype(self.dtype)

    def biased(self, y: Array) -> Array:
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return y + bias.astype(self.dtype)


class Down(_Conv):
    """`4 x 4 Conv, stride 2`, padding 1: halves height and width (multiples of 4)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, H/2, W/2, features]."""
        channels, x = x.shape[-1], x.astype(self.dtype)
        kernel = self.kernel(channels, self.features, 16 * channels)
        if channels == 1:
            return self.biased(down_patches(x, kernel))
        y = lax.platform_dependent(x, kernel, cpu=down_winograd, default=down_native)
        return self.biased(y)


class Up(_Conv):
    """`4 x 4 Trans-Conv, stride 2, padding 1`: doubles height and width (both even)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, 2H, 2W, features]."""
        channels, x = x.shape[-1], x.astype(self.dtype)
        kernel = self.kernel(self.features, channels, 4 * channels)
        if self.features == 1:
            return self.biased(up_patches(x, kernel))
        y = lax.platform_dependent(x, kernel, cpu=up_winograd, default=up_native)
        return self.biased(y)


class Collapse(_Conv):
    """The encoder's last `4 x 4 Conv`: a 4x4 map becomes one vector."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, 4, 4, C] -> [N, features]."""
        channels, x = x.shape[-1], x.astype(self.dtype)
        kernel = self.kernel(channels, self.features, 16 * channels)
        return self.biased(x.reshape(len(x), -1) @ kernel.reshape(-1, self.features))


class Expand(_Conv):
    """The decoder's first `4 x 4 Trans-Conv, stride 1`: a vector becomes a 4x4 map."""

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """[N, D] -> [N, 4, 4, features]."""
        latent, z = z.shape[-1], z.astype(self.dtype)
        kernel = self.kernel(self.features, latent, latent)
        return self.biased(jnp.einsum("nd,hwfd->nhwf", z, kernel))


class NormReLU(nn.Module):
    """Batch normalization (statistics synchronised over the axis `axis_name`), then ReLU."""

    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Same shape as `x`; running averages are updated while training."""
        norm = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )
        return jax.nn.relu(norm(x))
