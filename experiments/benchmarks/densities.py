"""Density fitting: an EM iteration, and a training step of the flow."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from cradl_jax.densities import em, gmm, realnvp, realnvp_fit
from experiments.benchmarks import flops
from experiments.benchmarks.rows import Limit, Row, compare
from experiments.benchmarks.timing import REPETITIONS, matrix_products, reports

REGULARIZATION = 1e-5
COMPARED = 3  # steps of the flow whose losses must agree


def clustered(points: int, size: int, clusters: int = 8) -> np.ndarray:
    """Draw points [N, D] in `clusters` clusters, each with a mean and a covariance of its own."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((points, size), np.float32)
    for rows in np.array_split(np.arange(points), clusters):
        shape = np.eye(size) + rng.normal(0, 0.5 * size**-0.5, (size, size))
        z[rows] = z[rows] @ shape.astype(np.float32) + rng.standard_normal(size, np.float32)
    return (z - z.mean(0)) / z.std(0)


def em_iteration(
    points: int = 20_000,
    size: int = 512,
    components: int = 8,
    iterations: int = 2,
    repetitions: int = REPETITIONS,
) -> Row:
    """Time an EM iteration of a mixture with full covariances."""
    z = clustered(points, size)
    start = em.warm_start(jax.random.key(0), z, components, REGULARIZATION)
    data = jax.device_put(z)

    def ours() -> tuple[gmm.GMM, np.ndarray]:
        with threadpool_limits(1, "blas"):  # as `em.fit` does
            return em.run(data, start, 0.0, REGULARIZATION, iterations)

    def peer() -> list[float]:
        return _scikit_learn(z, start, iterations)

    _, responsibilities = em.e_step(start, z)
    needed = int((np.asarray(responsibilities) > 0).sum())  # nonzero pairs of point and component
    return compare(
        "em",
        f"an iteration on {points} x {size}, K = {components}, full covariances",
        "densities.em",
        ours,
        {"scikit-learn GaussianMixture": peer},
        work="EM in float32 from the same start; log-likelihoods of all iterations agree to 1e-5. "
        "The limit counts a triangle of each covariance, and the points for which a component has "
        "a nonzero responsibility.",
        units=iterations,
        check=lambda mine, theirs: np.testing.assert_allclose(mine[1], theirs, rtol=1e-5),
        limit=Limit(matrix_products(), size**2 * (points * components + needed)),
        repetitions=repetitions,
    )


def _scikit_learn(z: np.ndarray, start: gmm.GMM, iterations: int) -> list[float]:
    """Return the log-likelihood at the start of each iteration of `GaussianMixture.fit`.

    Call its steps one by one: `fit` would begin with an initialization of its own.
    """
    model = GaussianMixture(len(start.means), reg_covar=REGULARIZATION)
    model.weights_ = np.exp(start.log_weights)
    model.means_ = np.array(start.means)
    model.precisions_cholesky_ = np.array(start.precision_factors)
    log_likelihoods = []
    for _ in range(iterations):
        log_likelihood, log_responsibilities = model._e_step(z)
        model._m_step(z, log_responsibilities)
        log_likelihoods.append(float(log_likelihood))
    return log_likelihoods


def flow(
    size: int = 512,
    batch: int = 512,
    steps: int = 32,
    hidden: int = 512,
    blocks: int = 8,
    repetitions: int = REPETITIONS,
) -> Row:
    """Time a training step of RealNVP with the settings of appendix D."""
    import torch  # pyright: ignore[reportMissingImports], of the extra `bench`

    from experiments.benchmarks.peers import freia

    z = clustered(steps * batch, size)
    settings = {"learning_rate": 1e-3, "weight_decay": 1e-4, "clip": 5.0}
    shape = {"hidden": hidden, "blocks": blocks}
    start = realnvp.init(jax.random.split(jax.random.key(0))[0], size, **shape)  # as `fit` does

    one_batch = z[:batch]  # an epoch is a step, in any order
    losses = realnvp_epochs(one_batch, COMPARED, batch_size=batch, noise=0.0, **settings, **shape)
    checked = freia.Flow(start, noise=0.0, **settings)
    expected = [checked.step(torch.tensor(one_batch)) for _ in range(COMPARED)]
    np.testing.assert_allclose([next(losses)["train"] for _ in expected], expected, rtol=1e-4)

    # One epoch more than are timed: the first one compiles.
    epochs = realnvp_epochs(z, repetitions + 1, batch_size=batch, noise=1e-3, **settings, **shape)
    peer = freia.Flow(start, noise=1e-3, **settings)
    batches = torch.tensor(z).reshape(steps, batch, size)
    seen = size // 2
    layers = blocks * flops.dense([seen, hidden, 2 * (size - seen)])
    return compare(
        "flow",
        f"a RealNVP step of {batch} x {size}, {blocks} blocks, {hidden} hidden",
        "densities.realnvp_fit.fit",
        lambda: next(epochs),
        {"FrEIA, AffineCouplingOneSided": lambda: [peer.step(batch) for batch in batches]},
        work="The same blocks in float32, noise, gradient clipping, Adam with L2 decay. From the "
        f"same weights the losses of the first {COMPARED} steps agree to 1e-4. Ours also shuffles "
        "and validates on one point.",
        units=steps,
        limit=Limit(matrix_products(), batch * flops.training(layers)),
        repetitions=repetitions,
    )


def realnvp_epochs(z: np.ndarray, epochs: int, **settings: Any) -> Iterator[dict[str, float]]:
    """Yield the losses of `realnvp_fit.fit`, an epoch at each `next`."""
    key, data = jax.random.key(0), jnp.asarray(z)
    return reports(
        lambda report: realnvp_fit.fit(
            key, data, data[:1], epochs=epochs, progress=report, **settings
        )
    )
