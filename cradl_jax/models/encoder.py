"""The DC-Encoder of Table 10."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from cradl_jax.models.layers import Collapse, Down, NormReLU
from cradl_jax.models.sizes import levels

SOWN = "intermediates"  # a collection that is not among the variables


class Encoder(nn.Module):
    """f: x -> z (Section 3): 4x4 convolutions of stride 2 with BN and ReLU, the last one bare.

    The last convolution sees all of a map of 4x4 pixels, or of 5x5 to 7x7 where the side of the
    image is no power of two (see `sizes`). Each level's map [N, H/2, H/2, nf],
    [N, H/4, H/4, 2 nf], ... is sown as `maps` into the collection `SOWN`.

    Attributes:
        features: nf of Table 10, channels of the first convolution; they double at each.
        latent: nz of Table 10, length of the representation.
        dtype: precision of the products; parameters and statistics stay float32.
        axis_name: device axis over which the batch statistics are synchronized.
    """

    features: int = 64
    latent: int = 512
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Map images [N, H, H] or [N, H, H, 1] to representations [N, latent], float32."""
        h = x.reshape(*x.shape[:3], 1)
        for level in range(levels(x.shape[1])):
            h = Down(self.features << level, self.dtype, use_bias=False)(h)
            h = NormReLU(self.axis_name, self.dtype)(h, train)
            self.sow(SOWN, "maps", h)
        return Collapse(self.latent, self.dtype)(h).astype(jnp.float32)
