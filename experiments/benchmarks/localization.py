"""Heatmaps of slices and their post-processing."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from scipy import ndimage

from cradl_jax import densities, scoring
from cradl_jax.densities import dense
from cradl_jax.devices.batches import in_batches
from cradl_jax.methods import encoder_of, features_of, initial_variables
from cradl_jax.objectives import Variables
from cradl_jax.ops.filters import median5x5
from cradl_jax.scoring import Scored
from experiments.benchmarks import flops
from experiments.benchmarks.densities import clustered
from experiments.benchmarks.rows import Limit, Row, compare
from experiments.benchmarks.timing import REPETITIONS, matrix_products, memory
from experiments.benchmarks.training import PAPER, Network, config_of, random_slices
from experiments.study import settings


def heatmaps(
    network: Network = PAPER,
    slices: int = 155,
    components: int = 8,
    repetitions: int = REPETITIONS,
) -> Row:
    """Time post-processed NLL-gradient heatmaps under a mixture."""
    from experiments.benchmarks.peers.torch_heatmaps import Scorer

    images = random_slices(slices, network.size)
    brains = brain_like(images)
    variables, density, score = nll_scoring(network, images, brains, slices, components)

    def ours() -> tuple[jax.Array, jax.Array]:
        scored = next(score())
        return scored.scores["gmm"], scored.heatmaps["gmm"]

    peer = Scorer(variables["params"]["encoder"], network[:3], density)
    layers = flops.encoder(network.size, network.features, network.latent)
    layers.append(components * network.latent**2)
    return compare(
        "heatmaps",
        f"{slices} slices of {network.size}x{network.size}, nf {network.features}, "
        f"GMM {components}",
        "scoring.nll, post_processed, in_batches",
        ours,
        {"PyTorch autograd, unfold and median, conv": lambda: peer(images, brains)},
        work="Float32, all slices at once; the same weights and mixture: scores agree to 1e-4, "
        "heatmaps to 1e-4 but for slices in which rounding crosses the kink of a ReLU.",
        check=assert_equal,
        limit=Limit(matrix_products(), slices * flops.input_gradient(layers)),
        repetitions=repetitions,
    )


def nll_scoring(
    network: Network, images: np.ndarray, brains: np.ndarray, batch: int, components: int
) -> tuple[Variables, densities.Density, Callable[[], Iterator[Scored]]]:
    """Set up scoring with fresh variables and a mixture fitted to their representations.

    Returns:
        The variables, the mixture, and a function that yields scores and post-processed heatmaps
        of all slices, batch by batch.
    """
    config = config_of(network)
    model = settings.network(config, "cradl")
    variables = initial_variables(model, config.seed, network.size)
    encode = encoder_of(model)
    density = mixture(np.array(jax.jit(encode)(variables, images[:batch])), components)
    scorer = scoring.post_processed(scoring.nll(encode))
    arrays: Any = scoring.Batch._make((images, brains, np.zeros(len(images), np.float32)))

    params = variables, {"gmm": density}
    return variables, density, lambda: scored_in_batches(scorer, params, arrays, batch)


def dense_maps(
    network: Network = PAPER,
    slices: int = 155,
    batch: int = 155,
    components: int = 8,
    repetitions: int = REPETITIONS,
) -> Row:
    """Time post-processed maps of dense densities beside NLL-gradient heatmaps."""
    images = random_slices(slices, network.size)
    brains = brain_like(images)
    variables, _, gradients = nll_scoring(network, images, brains, batch, components)
    features = features_of(settings.network(config_of(network), "cradl"))
    positions = np.linspace(0, 1, slices, dtype=np.float32)
    joint = gaussians(jax.jit(features)(variables, images[:batch]), images[:batch])
    scorer = scoring.post_processed(scoring.local(features))
    arrays: Any = scoring.Batch._make((images, brains, positions))

    params = variables, joint
    return compare(
        "dense",
        f"{slices:,} slices of {network.size}x{network.size}, nf {network.features}, batch {batch}",
        "scoring.local, post_processed, in_batches",
        lambda: exhaust(scored_in_batches(scorer, params, arrays, batch)),
        {f"scoring.nll under a GMM {components}, the same way": lambda: exhaust(gradients())},
        work="Two kinds of our maps, both copied to the host and dropped there.",
        units=slices,
        repetitions=repetitions,
    )


def scored_in_batches(
    scorer: scoring.Scorer, params: Any, arrays: scoring.Batch, batch: int
) -> Iterator[Scored]:
    """Yield scores and heatmaps of all slices, batch by batch on the first device."""
    rows, devices = np.arange(len(arrays.images)), jax.local_devices()[:1]
    return in_batches(scorer, params, arrays, rows, batch, devices)


def gaussians(features: jax.Array, images: np.ndarray) -> dense.Joint:
    """Fit Gaussians at every height to features [N, G, G, F] and pixels of slices [N, H, W]."""
    counts = min(dense.HEIGHTS, len(images)), len(images)
    heights, positions = (np.linspace(0, 1, n, dtype=np.float32) for n in counts)
    projection = dense.principal([features])
    return dense.Joint(
        projection,
        dense.fit(heights, [(features @ projection, positions)]),
        dense.fit(heights, [(images[..., None], positions)]),
    )


def exhaust(batches: Iterator[Scored]) -> None:
    """Compute all batches, and keep none."""
    for _ in batches:
        pass


def brain_like(images: np.ndarray) -> np.ndarray:
    """Return a mask [N, H, W] with a disk in every slice."""
    rows, columns = np.ogrid[-1 : 1 : images.shape[1] * 1j, -1 : 1 : images.shape[2] * 1j]
    return np.broadcast_to(rows**2 + columns**2 < 0.8, images.shape)


def mixture(z: np.ndarray, components: int) -> densities.Density:
    """Fit a mixture to points with the mean and spread of representations [N, D]."""
    points = clustered(4 * z.shape[1], z.shape[1], components) * z.std(0) + z.mean(0)
    return densities.fit_gmm(jax.random.key(0), points, components=components)[0]


def assert_equal(
    mine: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]
) -> None:
    """Raise unless scores and heatmaps agree.

    Where rounding puts a unit on the other side of its ReLU's kink, part of that slice's gradient
    differs; one slice in ten or twenty has such a unit.
    """
    (scores, maps), (their_scores, their_maps) = mine, theirs
    np.testing.assert_allclose(scores, their_scores, rtol=1e-4)
    error = np.linalg.norm(maps - their_maps, axis=(1, 2)) / np.linalg.norm(their_maps, axis=(1, 2))
    np.testing.assert_array_less(np.median(error), 1e-4)
    np.testing.assert_array_less(error, 0.1)


def median(
    slices: int = 256,
    size: int = 128,
    repetitions: int = REPETITIONS,
) -> Row:
    """Time the 5x5 median filter."""
    images = random_slices(slices, size)
    data = jax.device_put(images)
    return compare(
        "median",
        f"5x5 on {slices} x {size} x {size}",
        "ops.filters.median5x5",
        lambda: median5x5(data),
        {
            "scipy.ndimage.median_filter": lambda: ndimage.median_filter(
                images, size=(1, 5, 5), mode="mirror"
            )
        },
        work="Float32, reflecting border, equal to the bit. scipy runs on one core.",
        check=np.testing.assert_array_equal,
        limit=Limit(memory(), 2 * images.nbytes),
        repetitions=repetitions,
    )
