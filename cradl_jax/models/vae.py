"""The VAE of appendix B: the DC-Encoder and DC-Decoder of Table 10."""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from cradl_jax.intensity import CLIP
from cradl_jax.models.encoder import Encoder
from cradl_jax.models.layers import Expand, NormReLU, Up
from cradl_jax.models.sizes import levels


class Posterior(NamedTuple):
    """q(z|x), a Gaussian with a diagonal covariance.

    Attributes:
        mean: [N, D].
        log_variance: [N, D].
    """

    mean: Array
    log_variance: Array

    def sample(self, keys: Array) -> Array:
        """Draw one z a row by reparametrization, with one key a row: [N, D]."""
        noise = jax.vmap(lambda key: jax.random.normal(key, self.mean.shape[1:]))(keys)
        return self.mean + jnp.exp(self.log_variance / 2) * noise


class Decoder(nn.Module):
    """Dec: z -> image; the sigmoid of Table 10 mapped onto the range of the images.

    Attributes:
        size: height and width of the images.
        features: nf of Table 10.
        dtype: precision of the products.
        axis_name: device axis over which the batch statistics are synchronized.
    """

    size: int
    features: int = 64
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, z: Array, train: bool = False) -> Array:
        """Map [N, D] to images [N, size, size] in (-1.5, 1.5), float32."""
        doublings = levels(self.size)
        width, side = self.features << (doublings - 1), self.size >> doublings
        h = Expand(width, self.dtype, use_bias=False, side=side)(z)
        h = NormReLU(self.axis_name, self.dtype)(h, train)
        for level in reversed(range(doublings - 1)):
            h = Up(self.features << level, self.dtype, use_bias=False)(h)
            h = NormReLU(self.axis_name, self.dtype)(h, train)
        logits = Up(1, self.dtype)(h)[..., 0].astype(jnp.float32)
        return CLIP * (2 * nn.sigmoid(logits) - 1)


class VAE(nn.Module):
    """Enc and Dec.

    Attributes:
        encoder: its output, of even length, is the posterior's mean and log-variance.
        decoder: maps a z of half that length to an image.
    """

    encoder: Encoder
    decoder: Decoder

    if TYPE_CHECKING:
        __hash__ = nn.Module.__hash__  # flax makes one from the fields

    def posterior(self, x: Array, train: bool = False) -> Posterior:
        """Map images [N, H, H] to q(z|x)."""
        return Posterior(*jnp.split(self.encoder(x, train), 2, axis=-1))

    def encode(self, x: Array, train: bool = False) -> Array:
        """Return Enc(x) = E[z] for z ~ q(z|x) (Table 9), [N, D]."""
        return self.posterior(x, train).mean

    def decode(self, z: Array, train: bool = False) -> Array:
        """Map [N, D] to images [N, H, H]."""
        return self.decoder(z, train)

    def reconstruct(self, x: Array, train: bool = False) -> tuple[Array, Posterior]:
        """Return Dec(E[z]) and q(z|x): what the scores and ceVAE's restoration use."""
        posterior = self.posterior(x, train)
        return self.decode(posterior.mean, train), posterior

    def __call__(
        self, x: Array, keys: Array | None = None, train: bool = False
    ) -> tuple[Array, Posterior]:
        """Return Dec(z) for z ~ q(z|x), one key a row, and q(z|x) (equation 7)."""
        if keys is None:
            return self.reconstruct(x, train)
        posterior = self.posterior(x, train)
        return self.decode(posterior.sample(keys), train), posterior
