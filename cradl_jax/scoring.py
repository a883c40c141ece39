"""Every row of Table 9: anomaly scores of slices and their heatmaps.

A scorer is `(params, Batch) -> Scored`. It is pure, and what it says of a slice depends on no other
slice of its batch. Higher = more anomalous throughout. The same arguments give the same scorer,
which compiles once for all data sets and seeds.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cradl_jax import densities
from cradl_jax.devices.parallel import AXIS, Devices, over_devices, replicate, shard, split_batch
from cradl_jax.losses import kl_divergence, reconstruction
from cradl_jax.models.vae import VAE
from cradl_jax.objectives import Variables
from cradl_jax.postprocess import postprocess

Encode = Callable[[Variables, Array], Array]


class Batch(NamedTuple):
    """Slices to be scored.

    Attributes:
        images: [N, H, W] in [-1.5, 1.5].
        brains: [N, H, W] bool.
        position: height within the brain, 0 its lowest slice and 1 its highest, [N].
    """

    images: Array
    brains: Array
    position: Array


class Scored(NamedTuple):
    """What a scorer says of a batch.

    Attributes:
        scores: by name, [N] each.
        heatmaps: by name, [N, H, W] each, non-negative, not yet post-processed.
    """

    scores: dict[str, Array]
    heatmaps: dict[str, Array]


Scorer = Callable[[Any, Batch], Scored]
OWN_SCORES, OWN_HEATMAPS = ("elbo", "kl", "rec"), ("rec", "kl_grad", "combi")
"""Names of what `vae` gives."""


def with_gradient(score: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    """s(x) of each row of `x` [N, ...] and grad_x s(x): [N] and [N, ...]."""
    scores, pullback = jax.vjp(score, x)
    (gradient,) = pullback(jnp.ones_like(scores))
    return scores, gradient


@functools.lru_cache
def nll(encode: Encode) -> Scorer:
    """NLL s(x) = -log p(Enc(x)) (equation 2) and nll-grad |grad_x s(x)| under each density.

    Params are (variables, densities by name). The encoder runs once for all of them.
    """

    def scorer(params: tuple[Variables, dict[str, densities.Density]], batch: Batch) -> Scored:
        variables, fitted = params
        z, to_image = jax.vjp(lambda x: encode(variables, x), batch.images)
        scores, heatmaps = {}, {}
        for name, density in fitted.items():
            scores[name], gradient = with_gradient(
                lambda z, density=density: -densities.log_prob(density, z), z
            )
            heatmaps[name] = jnp.abs(to_image(gradient)[0])
        return Scored(scores, heatmaps)

    return scorer


@functools.lru_cache
def vae(model: VAE, beta: float) -> Scorer:
    """ELBO, KL-Div. and Rec.; Rec., KL-Div.-grad and Combi. Params are the model's variables.

    Enc(x) is the posterior's mean, so that the scores are deterministic. Combi is the product of
    the two maps in their own units, never scaled by image or batch.
    """

    def scorer(variables: Variables, batch: Batch) -> Scored:
        images = batch.images
        x_hat, _ = model.apply(variables, images, method="reconstruct")
        rec, rec_map = reconstruction(images, x_hat), jnp.abs(images - x_hat)
        kl, kl_grad = with_gradient(
            lambda x: kl_divergence(model.apply(variables, x, method="posterior")), images
        )
        return Scored(
            {"elbo": rec + beta * kl, "kl": kl, "rec": rec},
            {"rec": rec_map, "kl_grad": jnp.abs(kl_grad), "combi": jnp.abs(kl_grad) * rec_map},
        )

    return scorer


def baseline(_: None, batch: Batch) -> Scored:
    """What any method must beat: the slice's position and brain area, and |intensity|."""
    position = -jnp.abs(batch.position - 0.5)  # anomalies are seldom at the brain's ends
    area = batch.brains.sum((1, 2)).astype(jnp.float32)
    return Scored({"position": position, "area": area}, {"intensity": jnp.abs(batch.images)})


@functools.lru_cache
def post_processed(scorer: Scorer) -> Scorer:
    """`scorer` with its heatmaps post-processed as in Section 4.5."""

    def processed(params: Any, batch: Batch) -> Scored:
        scores, heatmaps = scorer(params, batch)
        maps = {name: postprocess(heatmap, batch.brains) for name, heatmap in heatmaps.items()}
        return Scored(scores, maps)

    return processed


def in_batches(
    function: Callable,
    params: Any,
    arrays: Any,
    rows: np.ndarray,
    batch_size: int,
    devices: Devices,
) -> Iterator[Any]:
    """`function(params, batch)` over the given rows of `arrays`, a batch at a time on all devices.

    Each device works on its share, of which its process reads the slices, those of the next batch
    while the devices work; the results of all go to every process.

    Args:
        function: per device; its result has one row for each of the batch.
        params: the same for every batch.
        arrays: a tree of arrays with a row a slice, which may be memory-mapped.
        rows: which ones, and in which order.
        batch_size: over all devices; rounded up to a multiple of their number.
        devices: to run on, those of all processes that call this.

    Yields:
        The results for `batch_size` rows at a time. The last batch is padded and its result cut,
        so that `function` compiles once.
    """
    size = -(-batch_size // len(devices)) * len(devices)
    run = over_devices(_gathering(function), devices, (None, 0), None)
    params = replicate(params, devices)
    chosen = [rows[first : first + size] for first in range(0, len(rows), size)]

    def batch(rows: np.ndarray) -> Any:
        own = split_batch(np.resize(rows, (1, size)), devices)[:, 0]
        return jax.tree.map(lambda array: shard(array[own], devices), arrays)

    for part, ready in zip(chosen, one_ahead(map(batch, chosen)), strict=True):
        result = jax.device_get(run(params, ready))
        yield jax.tree.map(itemgetter(slice(len(part))), result)


def one_ahead(items: Iterable[Any]) -> Iterator[Any]:
    """The items, of which a thread makes the next while one is used."""
    items, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item


@functools.lru_cache
def _gathering(function: Callable) -> Callable:
    """`function` on every device, and the rows of all of them on each."""

    def gathering(params: Any, batch: Any) -> Any:
        return lax.all_gather(function(params, batch), AXIS, tiled=True)

    return gathering
