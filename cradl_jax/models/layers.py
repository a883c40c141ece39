"""The 4x4 convolutions of Table 10, each in the form that its hardware runs fastest.

XLA's CPU convolution is slow inside `lax.scan`, where training steps run. There a stride-2
convolution becomes products of matrices; elsewhere the native convolution is used.
`jax.lax.platform_dependent` chooses when the step is lowered. A convolution of one channel is a
product of patches everywhere: cuDNN has no fast form of it. All forms compute the same sums.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array, lax

LAYOUT = ("NHWC", "HWIO", "NHWC")
POINTS = {2: (0, 1), 4: (0, 1, -0.5, -2)}  # of those tried the ones that round least


def down_native(x: Array, kernel: Array) -> Array:
    """Stride-2 convolution, padding 1: [N, H, W, C] -> [N, H/2, W/2, O]; `kernel` [4, 4, C, O]."""
    return lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=LAYOUT)


def down_winograd(x: Array, kernel: Array) -> Array:
    """`down_native` in 6.25 or 9 matrix products instead of 16; H and W are multiples of 4.

    Over blocks of 2x2 pixels the convolution has 2x2 taps g and stride 1. Along one axis, m outputs
    side by side see m + 1 blocks d and need as many products instead of 2 m:

        A^T [(G g) * (B^T d)]

    This is Winograd's minimal filtering F(m x m, 2 x 2) (Lavin and Gray, arXiv:1509.09308), and
    Toom and Cook's multiplication transposed.
    """
    n, h, w, c = x.shape
    outputs = _outputs(h, w, c)
    of_outputs, of_taps, of_blocks = _matrices(outputs)
    blocks = _blocks(x).swapaxes(2, 3)  # [n, h/2 + 1, w/2 + 1, 2, 2, c]: runs of c are vectorized
    taps = kernel.reshape(2, 2, 2, 2, c, -1).transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 4 * c, -1)

    def row(blocks: Array, taps: Array) -> Array:
        products = [
            (d.reshape(-1, 4 * c) @ g).reshape(n, h // outputs // 2, w // outputs // 2, -1)
            for d, g in zip(
                _combine(of_blocks, _windows(blocks, 2, outputs)),
                _combine(of_taps, _split(taps, 0)),
                strict=True,
            )
        ]
        return _join(_combine(of_outputs, products), 3)

    rows = map(
        row,
        _combine(of_blocks, _windows(blocks, 1, outputs)),
        _combine(of_taps, _split(taps, 0)),
    )
    return _join(_combine(of_outputs, list(rows)), 2).reshape(n, h // 2, w // 2, -1)


def _outputs(height: int, width: int, channels: int) -> int:
    """m: 4, but 2 for an image with fewer pixels than channels.

    There the (m + 1)^2 forms of the kernel cost more than fewer products save.
    """
    divides = height % 8 == 0 == width % 8
    return 4 if divides and height * width >= channels else 2


@functools.cache
def _matrices(outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T [m, m + 1], G [m + 1, 2] and B^T [m + 1, m + 1] of `down_winograd`, m being `outputs`."""

    def values(count: int) -> np.ndarray:
        """Turns `count` coefficients of a polynomial to its values at the points and infinity."""
        finite = np.vander(POINTS[outputs], count, increasing=True)
        return np.append(finite, np.eye(count)[-1:], axis=0)

    coefficients = np.linalg.inv(values(outputs + 1)).round(12)  # zeros are zeros
    return values(outputs).T, values(2), coefficients.T


def _combine(matrix: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """`matrix` times the arrays."""
    return [
        functools.reduce(
            operator.add, [float(c) * a for c, a in zip(row, arrays, strict=True) if c]
        )
        for row in matrix
    ]


# The gradients of these are written out: those of slices with strides visit pixels one by one.


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _windows(blocks: Array, axis: int, outputs: int) -> list[Array]:
    """The `outputs` + 1 blocks along an axis which as many outputs side by side see."""
    before, after = blocks.shape[:axis], blocks.shape[axis + 1 :]
    count = blocks.shape[axis] // outputs
    padded = _extend(blocks, axis, 0, outputs - 1)
    tiles = padded.reshape(*before, count + 1, outputs, *after)
    first, *others = jnp.unstack(tiles, axis=axis + 1)
    inner = [lax.slice_in_dim(d, 0, count, axis=axis) for d in (first, *others)]
    return [*inner, lax.slice_in_dim(first, 1, count + 1, axis=axis)]


def _windows_backward(axis: int, outputs: int, _, gradients: list[Array]) -> tuple[Array]:
    first, *others, last = gradients
    first = _extend(first, axis, 0, 1) + _extend(last, axis, 1, 0)
    tiles = jnp.stack([first, *(_extend(g, axis, 0, 1) for g in others)], axis + 1)
    before, after = first.shape[:axis], first.shape[axis + 1 :]
    padded = tiles.reshape(*before, outputs * first.shape[axis], *after)
    return (lax.slice_in_dim(padded, 0, padded.shape[axis] - outputs + 1, axis=axis),)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _split(x: Array, axis: int) -> list[Array]:
    return list(jnp.unstack(x, axis=axis))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _join(parts: list[Array], axis: int) -> Array:
    return jnp.stack(parts, axis)


_windows.defvjp(lambda x, axis, m: (_windows(x, axis, m), None), _windows_backward)
_split.defvjp(lambda x, axis: (_split(x, axis), None), lambda axis, _, g: (_join(g, axis),))
_join.defvjp(lambda x, axis: (_join(x, axis), None), lambda axis, _, g: (_split(g, axis),))


def _extend(x: Array, axis: int, low: int, high: int) -> Array:
    """Zeros before and after `x` along an axis."""
    return jnp.pad(x, [(low, high) if a == axis else (0, 0) for a in range(x.ndim)])


def down_patches(x: Array, kernel: Array) -> Array:
    """`down_native` of one channel in one product: Winograd's would be too thin to be fast."""
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
    """`up_native` in fewer matrix products: the adjoint of `down_winograd`; H and W are even."""
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
