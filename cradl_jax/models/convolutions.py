"""The 4x4 convolutions of Table 10, each in the form that its hardware runs fastest.

XLA's CPU convolution is slow inside `lax.scan`, where training steps run. There a stride-2
convolution is cut into patches and becomes one matrix product; elsewhere the native convolution
is used. `jax.lax.platform_dependent` chooses when the step is lowered. Both forms compute the
same sums.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

LAYOUT = ("NHWC", "HWIO", "NHWC")


def _windows(x: Array) -> Array:
    """All 2x2 windows of `x` [N, H, W, C], side by side in the channels: [N, H-1, W-1, 4C]."""
    corners = [x[:, :-1, :-1], x[:, :-1, 1:], x[:, 1:, :-1], x[:, 1:, 1:]]
    windows = jnp.stack(corners, axis=3)
    return windows.reshape(*windows.shape[:3], -1)


def _pad(x: Array) -> Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def down_native(x: Array, kernel: Array) -> Array:
    """Stride-2 convolution, padding 1: [N, H, W, C] -> [N, H/2, W/2, O]; `kernel` [4, 4, C, O]."""
    return lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=LAYOUT)


def down_matmul(x: Array, kernel: Array) -> Array:
    """`down_native` as a matrix product over patches: 2x2 windows of 2x2 blocks."""
    n, h, w, c = x.shape
    blocks = _pad(x).reshape(n, h // 2 + 1, 2, w // 2 + 1, 2, c).transpose(0, 1, 3, 2, 4, 5)
    patches = _windows(blocks.reshape(n, h // 2 + 1, w // 2 + 1, 4 * c))
    weights = kernel.reshape(2, 2, 2, 2, c, -1).transpose(0, 2, 1, 3, 4, 5)
    return patches @ weights.reshape(16 * c, -1)


def up_native(x: Array, kernel: Array) -> Array:
    """Transposed convolution, stride 2, padding 1: [N, H, W, C] -> [N, 2H, 2W, O].

    `kernel` [4, 4, C, O] is applied as PyTorch applies it: the adjoint of `down_native`.
    """
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        ((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=LAYOUT,
    )


def up_matmul(x: Array, kernel: Array) -> Array:
    """`up_native` as a matrix product: each 2x2 window gives one value to each output parity.

    Output row 2i + a sees the input rows i + a - 1 and i + a, through the kernel's rows 3 and 1
    if a = 0, and 2 and 0 if a = 1; likewise for columns.
    """
    n, h, w, c = x.shape
    taps = jnp.array([[3, 1], [2, 0]])  # [parity, window]
    weights = kernel[taps][:, :, taps]  # [a, window row, b, window column, C, O]
    weights = weights.transpose(1, 3, 4, 0, 2, 5).reshape(4 * c, -1)
    y = (_windows(_pad(x)) @ weights).reshape(n, h + 1, w + 1, 2, 2, -1)
    rows = [jnp.stack([y[:, a : a + h, b : b + w, a, b] for b in (0, 1)], axis=3) for a in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, -1)


class _Conv(nn.Module):
    """Parameters shared by the four layers.

    A convolution that batch normalization follows needs no bias: its gradient is exactly zero,
    and Adam would turn the rounding noise into a random walk.
    """

    features: int
    dtype: jnp.dtype = jnp.float32
    use_bias: bool = True

    def kernel(self, channels: int, fan_in: int) -> Array:
        init = nn.initializers.normal(fan_in**-0.5)
        kernel = self.param("kernel", init, (4, 4, channels, self.features))
        return kernel.astype(self.dtype)

    def biased(self, y: Array) -> Array:
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return y + bias.astype(self.dtype)


class Down(_Conv):
    """`4 x 4 Conv, stride 2`, padding 1: halves height and width (both even)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, H/2, W/2, features]."""
        kernel, x = self.kernel(x.shape[-1], 16 * x.shape[-1]), x.astype(self.dtype)
        y = lax.platform_dependent(x, kernel, cpu=down_matmul, default=down_native)
        return self.biased(y)


class Up(_Conv):
    """`4 x 4 Trans-Conv, stride 2, padding 1`: doubles height and width."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, 2H, 2W, features]."""
        kernel, x = self.kernel(x.shape[-1], 4 * x.shape[-1]), x.astype(self.dtype)
        y = lax.platform_dependent(x, kernel, cpu=up_matmul, default=up_native)
        return self.biased(y)


class Collapse(_Conv):
    """The encoder's last `4 x 4 Conv`: a 4x4 map becomes one vector."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, 4, 4, C] -> [N, features]."""
        kernel = self.kernel(x.shape[-1], 16 * x.shape[-1]).reshape(-1, self.features)
        return self.biased(x.astype(self.dtype).reshape(len(x), -1) @ kernel)


class Expand(_Conv):
    """The decoder's first `4 x 4 Trans-Conv, stride 1`: a vector becomes a 4x4 map."""

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """[N, D] -> [N, 4, 4, features]."""
        kernel = self.kernel(z.shape[-1], z.shape[-1])
        return self.biased(jnp.einsum("nd,hwdf->nhwf", z.astype(self.dtype), kernel))


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
