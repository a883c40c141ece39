"""Every row of Table 9: anomaly scores of slices and their heatmaps.

A scorer is `(params, images [N, H, W], brains [N, H, W]) -> Scored`. It is pure, and what it says
of a slice depends on no other slice of its batch. Higher = more anomalous throughout.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cradl_jax import densities
from cradl_jax.losses import kl_divergence, reconstruction
from cradl_jax.models.vae import VAE
from cradl_jax.objectives import Variables
from cradl_jax.parallel import Devices, everywhere, over_devices, share_out

Encode = Callable[[Variables, Array], Array]


class Scored(NamedTuple):
    """What a scorer says of a batch.

    Attributes:
        scores: by name, [N] each.
        heatmaps: by name, [N, H, W] each, non-negative, not yet post-processed.
    """

    scores: dict[str, Array]
    heatmaps: dict[str, Array]


Scorer = Callable[[Any, Array, Array], Scored]


def with_gradient(score: Callable[[Array], Array], images: Array) -> tuple[Array, Array]:
    """s(x) of each image and |grad_x s(x)|: [N] and [N, H, W]."""
    scores, pullback = jax.vjp(score, images)
    (gradient,) = pullback(jnp.ones_like(scores))
    return scores, jnp.abs(gradient)


def nll(encode: Encode, name: str) -> Scorer:
    """NLL and nll-grad: s(x) = -log p(Enc(x)) (equation 2); params are (variables, density)."""

    def scorer(params: tuple[Variables, densities.Density], images: Array, _: Array) -> Scored:
        variables, density = params
        scores, heatmaps = with_gradient(
            lambda x: -densities.log_prob(density, encode(variables, x)), images
        )
        return Scored({name: scores}, {name: heatmaps})

    return scorer


def vae(model: VAE, beta: float) -> Scorer:
    """ELBO, KL-Div. and Rec.; Rec., KL-Div.-grad and Combi. Params are the model's variables.

    Enc(x) is the posterior's mean, so that the scores are deterministic. Combi is the product of
    the two maps in their own units, never scaled by image or batch.
    """

    def scorer(variables: Variables, images: Array, _: Array) -> Scored:
        x_hat, _ = model.apply(variables, images, method="reconstruct")
        rec, rec_map = reconstruction(images, x_hat), jnp.abs(images - x_hat)
        kl, kl_grad = with_gradient(
            lambda x: kl_divergence(model.apply(variables, x, method="posterior")), images
        )
        return Scored(
            {"elbo": rec + beta * kl, "kl": kl, "rec": rec},
            {"rec": rec_map, "kl_grad": kl_grad, "combi": kl_grad * rec_map},
        )

    return scorer


def baseline(_: None, images: Array, brains: Array) -> Scored:
    """What any method must beat: the area of the brain in the slice, and |intensity|."""
    area = brains.sum((1, 2)).astype(jnp.float32)
    return Scored({"area": area}, {"intensity": jnp.abs(images)})


def position(height: np.ndarray) -> np.ndarray:
    """The other baseline: nearness to the middle of the brain.

    Args:
        height: of each slice, 0 at the brain's lowest and 1 at its highest, [N].
    """
    return -np.abs(np.asarray(height, np.float32) - 0.5)


def in_batches(
    function: Callable, params: Any, *arrays: np.ndarray, batch_size: int, devices: Devices
) -> Iterator[Any]:
    """`function(params, *batch)` over the rows of `arrays`, on all devices, a batch at a time.

    The last batch is padded and its result cut, so that `function` compiles once. `batch_size`
    counts over all devices and is rounded up to a multiple of them.
    """
    batch = -(-batch_size // len(devices)) * len(devices)
    run = over_devices(function, devices, (None, *[0] * len(arrays)), 0)
    params = everywhere(params, devices)
    for first in range(0, len(arrays[0]), batch):
        rows = [np.asarray(array[first : first + batch]) for array in arrays]
        missing = batch - len(rows[0])
        padded = [np.concatenate([r, np.zeros((missing, *r.shape[1:]), r.dtype)]) for r in rows]
        shared = [share_out(r[None], devices)[:, 0] for r in padded]
        result = run(params, *shared)
        yield jax.tree.map(
            lambda x: np.asarray(x).reshape(batch, *x.shape[2:])[: batch - missing], result
        )
