"""A U-Net that restores slices, beyond the paper: the layers of Table 10, with skips."""

from typing import TYPE_CHECKING

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from cradl_jax.models.layers import Down, NormReLU, Up
from cradl_jax.models.sizes import levels

FREQUENCIES = 4  # of the embedding of a degree
FAINT = 0.01  # scale of the last layer's initial weights


class Modulation(nn.Module):
    """FiLM (Perez et al. 2018, arXiv:1709.07871): scale and shift each channel by the degree."""

    @nn.compact
    def __call__(self, h: Array, embedding: Array) -> Array:
        """Modulate maps [N, H, W, C] by embeddings [N, D] and keep their shape."""
        scale, shift = jnp.split(nn.Dense(2 * h.shape[-1])(embedding), 2, axis=-1)
        scale, shift = (one[:, None, None].astype(h.dtype) for one in (scale, shift))
        return h * (1 + scale) + shift


class UNet(nn.Module):
    """Restore a slice by adding a correction to it (Ronneberger et al. 2015, arXiv:1505.04597).

    4x4 convolutions of stride 2 lead to a map of 4x4 pixels, or of 5x5 to 7x7 (see `sizes`), and
    transposed ones back; each level of the way back sees the map of its size on the way there. The
    largest maps have half the image's side: a pixel of theirs has features enough for the four
    pixels that it stands for. At first the correction is faint, so that training starts from the
    slice as it is.

    Attributes:
        features: channels of the first convolution; they double at each.
        dtype: precision of the products; parameters and statistics stay float32.
        axis_name: device axis over which the batch statistics are synchronized.
        graded: whether the network is told how strongly a slice is corrupted.
    """

    features: int = 64
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None
    graded: bool = False

    if TYPE_CHECKING:
        __hash__ = nn.Module.__hash__  # flax makes one from the fields

    @nn.compact
    def __call__(self, x: Array, degree: Array | None = None, train: bool = False) -> Array:
        """Map images [N, H, H], and degrees in [0, 1], [N], to images [N, H, H], float32.

        Without degrees a graded network takes 0; one that is not graded ignores them.
        """
        embedding = None
        if self.graded:
            embedding = self._embedding(jnp.zeros(len(x)) if degree is None else degree)

        def block(layer: nn.Module, h: Array) -> Array:
            h = NormReLU(self.axis_name, self.dtype)(layer(h), train)
            return h if embedding is None else Modulation()(h, embedding)

        h, skips = x[..., None], []
        for level in range(levels(x.shape[1])):
            h = block(Down(self.features << level, self.dtype, use_bias=False), h)
            skips.append(h)
        skips.pop()  # where the ways meet
        for level in reversed(range(len(skips))):
            h = block(Up(self.features << level, self.dtype, use_bias=False), h)
            h = jnp.concatenate([h, skips[level]], axis=-1)
        return x + Up(1, self.dtype, scale=FAINT)(h)[..., 0].astype(jnp.float32)

    def _embedding(self, degree: Array) -> Array:
        """Embed degrees [N] by waves and a hidden layer, [N, 4 nf]."""
        phases = jnp.pi * degree[:, None] * 2.0 ** jnp.arange(FREQUENCIES)
        waves = jnp.concatenate([degree[:, None], jnp.sin(phases), jnp.cos(phases)], axis=-1)
        return nn.relu(nn.Dense(4 * self.features)(waves))
