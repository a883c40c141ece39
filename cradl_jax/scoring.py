"""Every row of Table 9: anomaly scores of slices and their heatmaps, and those beyond the paper.

A scorer is `(params, Batch) -> Scored`. It is pure, and the result for a slice depends on no other
slice of its batch. Higher = more anomalous throughout. The same arguments give the same scorer,
which compiles once for all data sets and seeds.

The maps of `names.LOCAL` are beyond the paper. They have no score until all slices of a scan are
there: then `over_scan` tells distances in units of what is usual in the scan, and averages each map
with its neighbours'. Its maximum is the score.
"""

import functools
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cradl_jax import densities
from cradl_jax.densities import dense, memory
from cradl_jax.intensity import CLIP
from cradl_jax.losses import kl_divergence, reconstruction, ssim, total_variation
from cradl_jax.models.fae import FAE
from cradl_jax.models.unet import UNet
from cradl_jax.models.vae import VAE, Posterior
from cradl_jax.names import (
    BASELINE,
    DENSE,
    DISTANCES,
    LOCAL,
    MEMORY,
    REC,
    REC_SCAN,
    RESIDUALS,
    RESTORED,
    VAES,
)
from cradl_jax.objectives import Variables
from cradl_jax.postprocess import NEIGHBOURS, median, over_neighbours, postprocess, relative

Kind = TypeVar("Kind", Array, np.ndarray)
Encode = Callable[[Variables, Array], Array]
OfFeatures = dense.Joint | memory.Memory
"""What models a network's features at each position, see `names.OF_FEATURES`."""
Local = dense.Dense | OfFeatures
"""The same, or what models the pixels, see `names.PATCHES`."""


class Batch(NamedTuple, Generic[Kind]):
    """Slices to be scored, in arrays of JAX or of NumPy.

    Attributes:
        images: [N, H, W] in [-1.5, 1.5].
        brains: [N, H, W] bool.
        position: height within the brain, 0 its lowest slice and 1 its highest, [N].
    """

    images: Kind
    brains: Kind
    position: Kind


class Scored(NamedTuple, Generic[Kind]):
    """Scores and heatmaps of slices, in arrays of JAX or of NumPy.

    Attributes:
        scores: by name, [N] each.
        heatmaps: by name, [N, H, W] each, non-negative; a scorer's are not yet post-processed.
    """

    scores: dict[str, Kind]
    heatmaps: dict[str, Kind]


Scorer = Callable[[Any, Batch[Array]], Scored[Array]]


class OwnScores(NamedTuple):
    """Names of the scores and heatmaps that a method has beside those of densities."""

    scores: tuple[str, ...] = ()
    heatmaps: tuple[str, ...] = ()


_OWN = {
    **dict.fromkeys(VAES, OwnScores(("elbo", "kl", REC), (REC, "kl_grad", "combi"))),
    **dict.fromkeys(RESIDUALS, OwnScores((REC, REC_SCAN), (REC, REC_SCAN))),
    BASELINE: OwnScores(("position", "area"), ("intensity", "equalized")),
}
DEGREES = (0.25, 0.5, 0.75, 1.0)
"""Of corruption, for which a graded network restores a slice."""
FIDELITY = 0.3
"""Weight of the total variation of what a restoration changes, beside the ELBO."""
RATE = 0.02
"""Of the first step of a restoration: what an intensity changes by at a gradient of 1."""


def own_scores(method: str, restoration_steps: int = 0) -> OwnScores:
    """Return the names of a method's own scores; CRADL has none.

    A VAE has that of `restored` if there are `restoration_steps`. What models features or pixels at
    each position has its own name, and so does a density.
    """
    own = _OWN.get(method, OwnScores())
    if method in VAES and restoration_steps:
        return OwnScores((*own.scores, RESTORED), (*own.heatmaps, RESTORED))
    return own


def with_gradient(score: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    """Return s(x) of each row of `x` [N, ...] and grad_x s(x): [N] and [N, ...]."""
    scores, pullback = jax.vjp(score, x)
    (gradient,) = pullback(jnp.ones_like(scores))
    return scores, gradient


@functools.lru_cache
def nll(encode: Encode) -> Scorer:
    """Score by NLL s(x) = -log p(Enc(x)) (equation 2) and nll-grad |grad_x s(x)| of each density.

    Params are (variables, densities by name). The encoder runs once for all of them.
    """

    def scorer(
        params: tuple[Variables, dict[str, densities.Density]], batch: Batch[Array]
    ) -> Scored:
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
    """Score by ELBO, KL-Div. and Rec., and map Rec., KL-Div.-grad and Combi.

    Params are the model's variables.

    Enc(x) is the posterior's mean, so that the scores are deterministic. Combi is the product of
    the two maps in their own units, never scaled by image or batch.
    """

    def scorer(variables: Variables, batch: Batch[Array]) -> Scored:
        images = batch.images
        x_hat, _ = model.apply(variables, images, method="reconstruct")
        rec, rec_map = reconstruction(images, x_hat), jnp.abs(images - x_hat)
        kl, kl_grad = with_gradient(
            lambda x: kl_divergence(cast(Posterior, model.apply(variables, x, method="posterior"))),
            images,
        )
        return Scored(
            {"elbo": rec + beta * kl, "kl": kl, "rec": rec},
            {"rec": rec_map, "kl_grad": jnp.abs(kl_grad), "combi": jnp.abs(kl_grad) * rec_map},
        )

    return scorer


@functools.lru_cache
def restored(model: VAE, beta: float, steps: int) -> Scorer:
    """Map what restoring a slice changes, see `restore`. Params are the model's variables."""

    def scorer(variables: Variables, batch: Batch[Array]) -> Scored:
        def negative_elbo(x: Array) -> Array:
            x_hat, posterior = cast(Any, model.apply(variables, x, method="reconstruct"))
            return reconstruction(x, x_hat) + beta * kl_divergence(posterior)

        x = restore(negative_elbo, batch.images, batch.brains, steps)
        return Scored({}, {RESTORED: jnp.abs(batch.images - x)})

    return scorer


def restore(prior: Callable[[Array], Array], y: Array, brains: Array, steps: int) -> Array:
    """Restore slices y [N, H, W] to their likeliest x inside the brain (Chen et al. 2020).

    x minimizes `prior`(x) [N], the negative log-likelihood of normal slices, plus the total
    variation of x - y, by `steps` of gradient descent from y at a rate that falls to 0.
    """

    def energy(x: Array) -> Array:
        return prior(x) + FIDELITY * total_variation(x - y)

    def step(x: Array, rate: Array) -> tuple[Array, None]:
        _, gradient = with_gradient(energy, x)
        return jnp.where(brains, jnp.clip(x - rate * gradient, -CLIP, CLIP), y), None

    x, _ = jax.lax.scan(step, y, RATE * (1 - jnp.arange(steps) / steps))
    return x


@functools.lru_cache
def restoration(model: UNet) -> Scorer:
    """Score by what a U-Net restores in a slice, |x - x_hat| inside the brain.

    Params are the model's variables. A graded network restores at each of `DEGREES`, and the map is
    the mean.
    """

    def scorer(variables: Variables, batch: Batch[Array]) -> Scored:
        images = batch.images
        degrees = jnp.array(DEGREES if model.graded else (0.0,))

        def residual_at(degree: Array) -> Array:
            x_hat = model.apply(variables, images, jnp.full(len(images), degree))
            return jnp.abs(images - cast(Array, x_hat))

        return _by_residual(jax.lax.map(residual_at, degrees).mean(0), batch.brains)

    return scorer


@functools.lru_cache
def feature_similarity(model: FAE) -> Scorer:
    """Score by the features that an FAE fails to reconstruct, 1 - SSIM inside the brain.

    Params are the model's variables. The map is the mean over features, upsampled (Meissen et al.
    2022).
    """

    def scorer(variables: Variables, batch: Batch[Array]) -> Scored:
        images = batch.images
        similarity = ssim(*cast(tuple[Array, Array], model.apply(variables, images))).mean(-1)
        unlike = jnp.maximum(1 - similarity, 0)  # rounding may bring it below
        return _by_residual(jax.image.resize(unlike, images.shape, "bilinear"), batch.brains)

    return scorer


def _by_residual(residual: Array, brains: Array) -> Scored:
    """Score by a residual [N, H, W] inside the brain.

    The map stands for itself, and once more to be averaged over the slices of a scan.
    """
    inside = jnp.where(brains, residual, 0)
    return Scored({REC: inside.sum((1, 2))}, {REC: inside, REC_SCAN: inside})


@functools.lru_cache
def local(features_of: Encode) -> Scorer:
    """Map how far the network's features and the pixels at each position are from normal.

    Params are (variables, what models the features).
    """

    def scorer(params: tuple[Variables, OfFeatures], batch: Batch[Array]) -> Scored:
        variables, fitted = params
        features = features_of(variables, batch.images)
        if isinstance(fitted, memory.Memory):
            return Scored({}, {MEMORY: memory.distance(fitted, features, batch.images)})
        far = dense.joint_distance(fitted, features, batch.images, batch.position)
        return Scored({}, {DENSE: far})

    return scorer


def baseline(fitted: dict[str, dense.Dense], batch: Batch[Array]) -> Scored:
    """Score by what any method must beat: position, brain area, intensity, and no network.

    Intensity is taken by itself, and as `equalized` gives it (Meissen et al. 2021,
    arXiv:2109.06023).

    The Gaussians `fitted` to patches of pixels at each position and height, by name, map how far
    each patch is from normal.
    """
    size = batch.images.shape[1]
    scores = {
        "position": -jnp.abs(batch.position - 0.5),  # anomalies are seldom at the brain's ends
        "area": batch.brains.sum((1, 2)).astype(jnp.float32),
    }
    heatmaps = {
        "intensity": jnp.abs(batch.images),
        "equalized": equalized(batch.images, batch.brains),
    }
    for name, gaussians in fitted.items():
        side = size // gaussians.mean.shape[1]
        far = dense.distance(gaussians, dense.patches(batch.images, side), batch.position)
        heatmaps[name] = jax.image.resize(far, batch.images.shape, "bilinear")
    return Scored(scores, heatmaps)


def equalized(images: Array, brains: Array) -> Array:
    """Equalize histograms of images [N, H, W]: the share of the brain that is darker, [N, H, W].

    Slices without brain are 0.
    """

    def of_slice(image: Array, brain: Array) -> Array:
        ascending = jnp.sort(jnp.where(brain, image, jnp.inf), axis=None)
        darker = jnp.searchsorted(ascending, image.ravel()).reshape(image.shape)
        return jnp.where(brain, darker / jnp.maximum(brain.sum(), 1), 0)

    return jax.vmap(of_slice)(images, brains)


@functools.lru_cache
def post_processed(scorer: Scorer) -> Scorer:
    """Return `scorer` with its heatmaps post-processed as in Section 4.5.

    Those of `names.LOCAL` are not smoothed within the slice; `over_scan` does it over slices.
    """

    def processed(params: Any, batch: Batch[Array]) -> Scored:
        scores, heatmaps = scorer(params, batch)
        maps = {
            name: (median if name in LOCAL else postprocess)(heatmap, batch.brains)
            for name, heatmap in heatmaps.items()
        }
        return Scored(scores, maps)

    return processed


def over_scan(scored: Scored[np.ndarray], neighbours: int = 0) -> Scored[np.ndarray]:
    """Finish the post-processed maps of all slices of a scan, in their order.

    Those of `names.DISTANCES` are told in units of what is usual in the scan, see `relative`. Those
    of `names.LOCAL` are averaged with those of their neighbours, and a slice's score is the highest
    value. All others are averaged over as many `neighbours` on either side as are asked for; the
    paper has none.
    """

    def finished(name: str, heatmap: np.ndarray) -> np.ndarray:
        if name in DISTANCES:
            heatmap = relative(heatmap)
        return over_neighbours(heatmap, NEIGHBOURS if name in LOCAL else neighbours)

    heatmaps = {name: finished(name, heatmap) for name, heatmap in scored.heatmaps.items()}
    highest = {name: heatmap.max((1, 2)) for name, heatmap in heatmaps.items() if name in LOCAL}
    return Scored(scored.scores | highest, heatmaps)
