"""What each method minimizes over a batch of slices: views, model and loss put together.

An objective is `(variables, images [n, H, W], keys [n], train) -> (loss, (batch_stats, terms))`,
where `variables` holds `params` and `batch_stats`. It is pure and runs on each device of the axis
`axis_name`, with one random key per image, so that the devices may split a batch in any way.
The same arguments give the same objective, whose training compiles once for all seeds.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array, lax

from cradl_jax.augment import Transform, cut_out
from cradl_jax.corruptions import (
    coarse_noise,
    cut_paste,
    cut_paste_scar,
    foreign_patches,
    hidden_blocks,
)
from cradl_jax.losses import elbo, nt_xent, reconstruction, squared_error, ssim
from cradl_jax.models.autoencoder import Autoencoder
from cradl_jax.models.fae import FAE
from cradl_jax.models.simclr import SimCLR
from cradl_jax.models.unet import UNet
from cradl_jax.models.vae import VAE

CLASSES = 3  # that CutPaste tells apart: a view, with a pasted box, with a pasted scar
Variables = Mapping[str, Any]
Objective = Callable[[Variables, Array, Array, bool], tuple[Array, tuple[Any, dict[str, Array]]]]


def _apply(model: nn.Module, variables: Variables, train: bool, *inputs: Array) -> tuple[Any, Any]:
    """Return the model's output and the batch statistics after it."""
    if not train:
        return model.apply(variables, *inputs), variables["batch_stats"]
    output, updated = model.apply(variables, *inputs, train=True, mutable=["batch_stats"])
    return output, updated["batch_stats"]


@functools.lru_cache
def simclr(
    model: SimCLR, view: Transform, temperature: float, axis_name: str | None = None
) -> Objective:
    """Contrast two random views of each slice by NT-Xent (Section 3.1).

    The views pass one after the other, so that each has batch statistics of its own.
    """

    def objective(variables: Variables, images: Array, keys: Array, train: bool):
        first, second = jax.vmap(jax.random.split, out_axes=1)(keys)
        u, stats = _apply(model, variables, train, jax.vmap(view)(first, images))
        v, stats = _apply(
            model, {**variables, "batch_stats": stats}, train, jax.vmap(view)(second, images)
        )
        loss, terms = nt_xent(u, v, temperature, axis_name)
        return loss, (stats, terms)

    return objective


@functools.lru_cache
def vae(model: VAE, view: Transform, beta: float) -> Objective:
    """Reconstruct a random view of each slice (appendix B, equation 7)."""

    def objective(variables: Variables, images: Array, keys: Array, train: bool):
        view_keys, sample_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        x = jax.vmap(view)(view_keys, images)
        (x_hat, posterior), stats = _apply(model, variables, train, x, sample_keys)
        loss, terms = elbo(x, x_hat, posterior, beta)
        return loss, (stats, terms)

    return objective


@functools.lru_cache
def cevae(model: VAE, view: Transform, beta: float, gamma: float) -> Objective:
    """Reconstruct a view, and restore it from a masked one (appendix B, equation 8)."""

    def objective(variables: Variables, images: Array, keys: Array, train: bool):
        view_keys, sample_keys, mask_keys = jax.vmap(
            lambda key: jax.random.split(key, 3), out_axes=1
        )(keys)
        x = jax.vmap(view)(view_keys, images)
        (x_hat, posterior), stats = _apply(model, variables, train, x, sample_keys)
        masked = jax.vmap(cut_out)(mask_keys, x)
        (x_restore, _), stats = _apply(model, {**variables, "batch_stats": stats}, train, masked)
        loss, terms = elbo(x, x_hat, posterior, beta)
        restore = reconstruction(x, x_restore).mean()
        return loss + gamma * restore, (stats, {**terms, "restore": restore})

    return objective


@functools.lru_cache
def cutpaste(model: SimCLR, view: Transform) -> Objective:
    """Tell a view, its CutPaste and its CutPaste-Scar apart (Li et al. 2021, arXiv:2104.04015).

    All pass at once: batch statistics of one class alone would tell it, and differ from the running
    ones. Views must leave the background 0, which tells the brain.
    """

    def objective(variables: Variables, images: Array, keys: Array, train: bool):
        view_keys, box_keys, scar_keys = jax.vmap(lambda key: jax.random.split(key, 3), out_axes=1)(
            keys
        )
        x = jax.vmap(view)(view_keys, images)
        boxes, scars = jax.vmap(cut_paste)(box_keys, x), jax.vmap(cut_paste_scar)(scar_keys, x)
        logits, stats = _apply(model, variables, train, jnp.concatenate([x, boxes, scars]))
        classes = jnp.arange(CLASSES).repeat(len(x))
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, classes).mean()
        return loss, (stats, {"accuracy": (logits.argmax(-1) == classes).mean()})

    return objective


@functools.lru_cache
def mae(model: Autoencoder, view: Transform) -> Objective:
    """Restore the hidden blocks of a view from the others (He et al. 2022, arXiv:2111.06377).

    What is hidden is 0, as the background; no other pixel is in the loss.
    """

    def objective(variables: Variables, images: Array, keys: Array, train: bool):
        view_keys, mask_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        x = jax.vmap(view)(view_keys, images)
        hidden = jax.vmap(functools.partial(hidden_blocks, size=x.shape[1]))(mask_keys)
        x_hat, stats = _apply(model, variables, train, jnp.where(hidden, 0, x))
        return squared_error(x, x_hat, hidden), (stats, {})

    return objective


@functools.lru_cache
def dae(model: UNet, view: Transform, noise: float) -> Objective:
    """Restore a view from coarse noise of the deviation `noise` (Kascenas et al. 2022).

    Views must leave the background 0, which tells the brain.
    """

    def objective(variables: Variables, images: Array, keys: Array, train: bool):
        view_keys, noise_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        x = jax.vmap(view)(view_keys, images)
        noisy = jax.vmap(functools.partial(coarse_noise, deviation=noise))(noise_keys, x)
        x_hat, stats = _apply(model, variables, train, noisy)
        return squared_error(x, x_hat), (stats, {})

    return objective


@functools.lru_cache
def disyre(model: UNet, view: Transform, axis_name: str | None = None) -> Objective:
    """Restore a view from patches of another slice and a smooth bias (Naval Marimont et al. 2024).

    Each slice draws a degree in [0, 1), which the network is told. The other slice is that half a
    batch further on, over all devices of the axis `axis_name`. Views as in `dae`.
    """

    def objective(variables: Variables, images: Array, keys: Array, train: bool):
        view_keys, degree_keys, patch_keys = jax.vmap(
            lambda key: jax.random.split(key, 3), out_axes=1
        )(keys)
        x = jax.vmap(view)(view_keys, images)
        degree = jax.vmap(jax.random.uniform)(degree_keys)
        corrupted = jax.vmap(foreign_patches)(patch_keys, x, _others(x, axis_name), degree)
        x_hat, stats = _apply(model, variables, train, corrupted, degree)
        return squared_error(x, x_hat), (stats, {})

    return objective


@functools.lru_cache
def fae(model: FAE, view: Transform) -> Objective:
    """Reconstruct the features of a view, alike in structure (Meissen et al. 2022)."""

    def objective(variables: Variables, images: Array, keys: Array, train: bool):
        x = jax.vmap(view)(keys, images)
        (features, reconstructed), stats = _apply(model, variables, train, x)
        return 1 - ssim(features, reconstructed).mean(), (stats, {})

    return objective


def _others(x: Array, axis_name: str | None) -> Array:
    """Return for each of a device's images [n, H, W] that half a batch further on."""
    everyone, first = x, 0
    if axis_name is not None:
        everyone = lax.all_gather(x, axis_name, tiled=True)
        first = lax.axis_index(axis_name) * len(x)
    total = len(everyone)
    return everyone[(first + jnp.arange(len(x)) + total // 2) % total]
