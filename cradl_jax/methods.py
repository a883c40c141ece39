"""Each method: a network, and its own scores beside those of densities."""

import functools
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp

from cradl_jax import names, scoring
from cradl_jax.densities import dense, memory
from cradl_jax.devices.parallel import AXIS
from cradl_jax.errors import InputError
from cradl_jax.models.autoencoder import Autoencoder
from cradl_jax.models.encoder import SOWN, Encoder
from cradl_jax.models.fae import FAE
from cradl_jax.models.simclr import SimCLR
from cradl_jax.models.unet import UNet
from cradl_jax.models.vae import VAE, Decoder
from cradl_jax.names import CRADL, CUTPASTE, DAE, DENSE, MAE, MEMORY, METHODS, RESTORERS
from cradl_jax.objectives import CLASSES, Variables

LEVELS = {DENSE: dense.LEVELS, MEMORY: memory.LEVELS}
SMALLEST = 16  # pixels of a slice whose features an FAE can halve
DTYPES = ("auto", "float32", "bfloat16", "float16")
Network = SimCLR | VAE | Autoencoder | UNet | FAE


def check(method: str) -> None:
    """Raise an InputError unless there is such a method."""
    if method not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}, found {method!r}")


def network(
    method: str, *, size: int, features: int, latent: int, head: Sequence[int], dtype: str
) -> Network:
    """Build the network of a method (Section 3.1, Table 10).

    Where the method has an encoder (`names.has_encoder`), `encode` of the network gives z = Enc(x).

    Args:
        method: one of `METHODS`; a ceVAE is a VAE with another training loss.
        size: height and width of the slices in pixels.
        features: nf of Table 10.
        latent: nz of Table 10, length of z; a U-Net has none.
        head: widths of SimCLR's projection head; the last one of CutPaste's is its classes.
        dtype: of the matrix products, one of `DTYPES`; "auto" is float32 on CPU, else bfloat16.

    Raises:
        InputError: no such method, or slices too small for it.
    """
    check(method)
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    kind = jnp.dtype(dtype)
    if method == names.FAE:
        if size < SMALLEST:
            raise InputError(
                f"image size: expected at least {SMALLEST} pixels for {method}, whose grid of "
                f"features is half as wide and halved again, found {size}; choose another size"
            )
        return FAE(Encoder(features, latent, kind), 2 * features, kind, AXIS)
    if method in RESTORERS:
        return UNet(features, kind, AXIS, graded=method != DAE)
    encoder = Encoder(features, latent, kind, AXIS)
    if method == CRADL:
        return SimCLR(encoder, tuple(head))
    if method == CUTPASTE:
        return SimCLR(encoder, (*head[:-1], CLASSES))
    decoder = Decoder(size, features, kind, AXIS)
    if method == MAE:
        return Autoencoder(encoder, decoder)
    return VAE(encoder.copy(latent=2 * latent), decoder)


@functools.partial(jax.jit, static_argnums=(0, 2))
def initial_variables(model: Network, seed: int, size: int) -> Variables:
    """Draw fresh `params` and `batch_stats` for slices of `size` x `size` pixels."""
    return model.init(jax.random.key(seed), jnp.zeros((1, size, size)))


@functools.lru_cache
def encoder_of(model: Network) -> scoring.Encode:
    """Return z = Enc(x) as a function `(variables, images [N, H, W]) -> [N, latent]`.

    Equal networks give the same function.
    """

    def encode(variables: Variables, images: jax.Array) -> jax.Array:
        return cast(jax.Array, model.apply(variables, images, method="encode"))

    return encode


@functools.lru_cache
def features_of(model: Network, name: str = DENSE) -> scoring.Encode:
    """Return what `name` models at each position, as a function `(variables, images) -> features`.

    Features [N, G, G, F] of images [N, H, W] are the maps of the encoder's first levels and the
    pixels of the patch, on the grid of the patches, see `dense.patch_side`. Two levels are enough
    for Gaussians, which know the position; a memory has three. Equal networks give the same
    function.
    """

    def features(variables: Variables, images: jax.Array) -> jax.Array:
        _, state = cast(Any, model.apply(variables, images, method="encode", mutable=[SOWN]))
        maps = state[SOWN]["encoder"]["maps"][: LEVELS[name]]
        return dense.on_grid(maps, images)

    return features


def own_scorers(
    model: Network, beta: float, restoration_steps: int = 0
) -> Sequence[scoring.Scorer]:
    """Return the scorers of `scoring.own_scores`; none where densities alone score.

    They score by a VAE's loss terms (Table 9), D_KL times `beta`, and by what it restores in
    `restoration_steps`, by what a U-Net restores, or by the features that an FAE fails to
    reconstruct.
    """
    if isinstance(model, FAE):
        return [scoring.feature_similarity(model)]
    if isinstance(model, UNet):
        return [scoring.restoration(model)]
    if not isinstance(model, VAE):
        return []
    if not restoration_steps:
        return [scoring.vae(model, beta)]
    return [scoring.vae(model, beta), scoring.restored(model, beta, restoration_steps)]
