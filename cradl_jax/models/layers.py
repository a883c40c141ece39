"""The layers of Table 10: 4x4 convolutions, transposed convolutions and batch normalization.

The convolution next to the representation is as large as the map it sees, 4x4 in the paper.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from cradl_jax.ops import convolutions


class _Conv(nn.Module):
    """Parameters shared by the four layers.

    A transposed convolution's kernel is that of the convolution whose adjoint it is.
    A convolution that batch normalization follows needs no bias: its gradient is exactly zero,
    and Adam would turn the rounding noise into a random walk.

    Attributes:
        features: channels of the result.
        dtype: precision of the product.
        use_bias: whether one is added.
        scale: of the initial weights; at 1 the result varies as much as the input.
    """

    features: int
    dtype: jnp.dtype = jnp.float32
    use_bias: bool = True
    scale: float = 1.0

    def kernel(self, before: int, after: int, fan_in: int, side: int = 4) -> Array:
        init = nn.initializers.normal(self.scale * fan_in**-0.5)
        return self.param("kernel", init, (side, side, before, after)).astype(self.dtype)

    def biased(self, y: Array) -> Array:
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return y + bias.astype(self.dtype)


class Down(_Conv):
    """`4 x 4 Conv, stride 2`, padding 1: halves height and width (both even)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [N, H, W, C] to [N, H/2, W/2, features]."""
        channels, x = x.shape[-1], x.astype(self.dtype)
        kernel = self.kernel(channels, self.features, 16 * channels)
        return self.biased(convolutions.down(x, kernel))


class Up(_Conv):
    """`4 x 4 Trans-Conv, stride 2, padding 1`: doubles height and width."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [N, H, W, C] to [N, 2H, 2W, features]."""
        channels, x = x.shape[-1], x.astype(self.dtype)
        kernel = self.kernel(self.features, channels, 4 * channels)
        return self.biased(convolutions.up(x, kernel))


class Collapse(_Conv):
    """The encoder's last `4 x 4 Conv`: a map of 4x4 pixels, or KxK, becomes one vector."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [N, K, K, C] to [N, features]."""
        _, side, _, channels = x.shape
        x = x.astype(self.dtype)
        kernel = self.kernel(channels, self.features, side**2 * channels, side)
        return self.biased(x.reshape(len(x), -1) @ kernel.reshape(-1, self.features))


class Expand(_Conv):
    """The decoder's first `4 x 4 Trans-Conv, stride 1`: a vector becomes a map of KxK pixels.

    Attributes:
        side: K.
    """

    side: int = 4

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map [N, D] to [N, K, K, features]."""
        latent, z = z.shape[-1], z.astype(self.dtype)
        kernel = self.kernel(self.features, latent, latent, self.side)
        return self.biased(jnp.einsum("nd,hwfd->nhwf", z, kernel))


class NormReLU(nn.Module):
    """Batch normalization (statistics synchronized over the axis `axis_name`), then ReLU."""

    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Normalize `x` and keep its shape; running averages are updated while training."""
        norm = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )
        return jax.nn.relu(norm(x))
