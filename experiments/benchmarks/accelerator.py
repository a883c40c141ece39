"""The work of the paper's study on a GPU: how long each part of it takes there."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from cradl_jax import densities
from cradl_jax.methods import initial_variables
from cradl_jax.training.loop import steps_per_epoch
from cradl_jax.training.steps import adam
from experiments.benchmarks import flops
from experiments.benchmarks.densities import clustered
from experiments.benchmarks.localization import brain_like, exhaust, nll_scoring
from experiments.benchmarks.rows import Limit, Row, compare, limit_fields
from experiments.benchmarks.timing import REPETITIONS, Times, in_turn, matrix_products
from experiments.benchmarks.training import (
    PAPER,
    Network,
    config_of,
    random_slices,
    training_chunks,
    training_flops,
)
from experiments.study import settings

TRAINING = PAPER._replace(batch=512)
DISTINCT = 4096  # different slices in an epoch; the others repeat them


def pretext(
    method: str,
    network: Network = TRAINING,
    slices: int = 111_000,
    epochs: int = 100,
    seconds: float = 60.0,
) -> Row:
    """Time a whole training, extrapolated from steady chunks that take at least `seconds`."""
    config = config_of(network)
    model = settings.network(config, method)
    objective = settings.objective(config, method, model)
    schedule = settings.of_method(config, method).train
    steps = steps_per_epoch(slices, network.batch)
    optimizer = adam(
        schedule.learning_rate,
        schedule.weight_decay,
        schedule.warmup_epochs * steps,
        epochs * steps,
        schedule.annealing,
    )
    variables = initial_variables(model, config.seed, network.size)
    images = repeated(slices, network.size)
    chunks = training_chunks(
        objective, optimizer, variables, images, network.batch, epochs, slices // 10
    )
    first = next(chunk for chunk in chunks if chunk.val is not None)  # all is compiled by then
    begun = done = int(first.state.step)
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds and done < epochs * steps:
        done = int(next(chunks).state.step)
    step = Times((elapsed / (done - begun),))
    dtype = getattr(model, "encoder", model).dtype
    probe = matrix_products(dtype)
    limit = Limit(probe, network.batch * training_flops(method, network))
    probed, _ = in_turn({"limit": probe.run}, REPETITIONS)
    whole = step.median * steps * epochs
    return Row(
        "pretext" if method == "cradl" else method,
        f"{epochs} epochs of {slices:,} slices of {network.size}x{network.size}, "
        f"nf {network.features}, batch {network.batch}, {jnp.dtype(dtype).name}",
        "cradl_jax.training.loop",
        whole,
        (whole, whole),
        work=f"{network.batch / step.median:,.0f} slices/s with augmentation and validation, "
        f"extrapolated from {elapsed:.0f} s of steady training. The limit is that of a step.",
        **limit_fields(step, limit, probed["limit"]),
    )


def repeated(count: int, size: int) -> np.ndarray:
    """Return `count` slices [count, size, size], a few of them many times."""
    return np.resize(random_slices(min(count, DISTINCT), size), (count, size, size))


def scoring(
    network: Network = TRAINING,
    slices: int = 8192,
    batch: int = 256,
    components: int = 8,
    repetitions: int = REPETITIONS,
) -> Row:
    """Time NLL scores and post-processed heatmaps of many slices, in batches."""
    images = repeated(slices, network.size)
    _, _, score = nll_scoring(network, images, brain_like(images), batch, components)

    layers = flops.encoder(network.size, network.features, network.latent)
    layers.append(components * network.latent**2)
    dtype = settings.network(config_of(network), "cradl").encoder.dtype
    return compare(
        "scoring",
        f"a slice of {slices:,} of {network.size}x{network.size}, nf {network.features}, "
        f"batch {batch}, GMM {components}, {jnp.dtype(dtype).name}",
        "scoring.nll, post_processed, in_batches",
        lambda: exhaust(score()),
        {},
        work="Scores and heatmaps, both copied to the host and dropped there.",
        units=slices,
        limit=Limit(matrix_products(dtype), flops.input_gradient(layers)),
        repetitions=repetitions,
    )


def em(
    points: int = 111_000,
    size: int = 512,
    components: int = 8,
    clusters: int = 500,
    repetitions: int = REPETITIONS,
) -> Row:
    """Time fitting a mixture until convergence, to many more clusters than it has components."""
    z = jnp.asarray(clustered(points, size, clusters))
    iterations = len(densities.fit_gmm(jax.random.key(0), z, components=components)[1])
    return compare(
        "em",
        f"a fit to {points:,} x {size}, K = {components}, full covariances",
        "densities.fit_gmm",
        lambda: densities.fit_gmm(jax.random.key(0), z, components=components),
        {},
        work=f"From standardization to convergence after {iterations} iterations. The limit "
        "counts a triangle of each covariance in each of them.",
        limit=Limit(matrix_products(), iterations * points * size**2 * (components + 1)),
        repetitions=repetitions,
    )
