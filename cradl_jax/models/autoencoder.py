"""A plain autoencoder, beyond the paper: the DC-Encoder and DC-Decoder of Table 10."""

from typing import TYPE_CHECKING

from flax import linen as nn
from jax import Array

from cradl_jax.models.encoder import Encoder
from cradl_jax.models.vae import Decoder


class Autoencoder(nn.Module):
    """x_hat = Dec(f(x)).

    Attributes:
        encoder: f, whose output is the representation that the densities model.
        decoder: Dec, of images as large as those of the encoder.
    """

    encoder: Encoder
    decoder: Decoder

    if TYPE_CHECKING:
        __hash__ = nn.Module.__hash__  # flax makes one from the fields

    def encode(self, x: Array, train: bool = False) -> Array:
        """Map images [N, H, H] to representations z = f(x), [N, latent]."""
        return self.encoder(x, train)

    def __call__(self, x: Array, train: bool = False) -> Array:
        """Map images [N, H, H] to images [N, H, H]."""
        return self.decoder(self.encode(x, train), train)
