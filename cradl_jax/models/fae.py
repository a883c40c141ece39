"""A feature autoencoder (Meissen et al. 2022, arXiv:2208.10992), beyond the paper.

Its encoder is that of a trained CRADL, where the original takes one trained on ImageNet.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from cradl_jax.densities import dense
from cradl_jax.models.encoder import SOWN, Encoder
from cradl_jax.models.layers import Down, NormReLU, Up
from cradl_jax.models.sizes import levels

FROZEN = "frozen"  # a collection of variables that training leaves as they are


class FAE(nn.Module):
    """Reconstruct the features of a frozen encoder at each position.

    4x4 convolutions of stride 2 lead from the grid of the features to one of 4x4 points, or of 5x5
    to 7x7, and transposed ones back; there are no skips. The encoder's variables are in the
    collection `FROZEN`, where neither gradients, weight decay nor batch statistics reach them.

    Attributes:
        encoder: whose features are reconstructed, of the levels that `dense` models.
        features: channels of the first convolution; they double at each.
        dtype: precision of the products; parameters and statistics stay float32.
        axis_name: device axis over which the batch statistics are synchronized.
    """

    encoder: Encoder
    features: int = 64
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    if TYPE_CHECKING:
        __hash__ = nn.Module.__hash__  # flax makes one from the fields

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        """Map images [N, H, H] to features and their reconstruction, [N, G, G, F], float32."""
        features = self._frozen_features(x)

        def block(layer: nn.Module, h: Array) -> Array:
            return NormReLU(self.axis_name, self.dtype)(layer(h), train)

        h, depth = features, levels(features.shape[1])
        for level in range(depth):
            h = block(Down(self.features << level, self.dtype, use_bias=False), h)
        for level in reversed(range(depth - 1)):
            h = block(Up(self.features << level, self.dtype, use_bias=False), h)
        return features, Up(features.shape[-1], self.dtype)(h).astype(jnp.float32)

    def _frozen_features(self, x: Array) -> Array:
        """Return the features of images [N, H, H] at each position, [N, G, G, F]."""
        encoder = self.encoder.clone()  # a module of its own
        frozen = self.variable(FROZEN, "weights", lambda: encoder.init(self.make_rng("params"), x))
        _, state = cast(Any, encoder.apply(frozen.value, x, mutable=[SOWN]))
        return dense.on_grid(state[SOWN]["maps"][: dense.LEVELS], x)


def with_encoder(variables: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """Return an FAE's variables with the encoder of a trained network, given all of its own."""
    encoder = {name: trained[name]["encoder"] for name in ("params", "batch_stats")}
    return {**variables, FROZEN: {"weights": encoder}}
