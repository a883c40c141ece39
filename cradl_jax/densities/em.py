"""Expectation-maximization of Gaussian mixtures (Section 4.3).

Two passes over the data an iteration, each in blocks of rows, so that the memory beyond the data
is a few rows' worth. Representations have hundreds of dimensions, where nearly every point belongs
to one component alone: the M-step visits points sorted by component and skips the blocks that a
component has no part in, which divides its cost by the number of components. Devices share out the
points, and add up what the points say of each component.
"""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular
from threadpoolctl import threadpool_limits

from cradl_jax.densities.gmm import GMM, block, component_log_prob, matmul
from cradl_jax.devices.parallel import AXIS, Devices, over_devices
from cradl_jax.errors import InputError

WARM_UP = 10  # iterations with identity covariances
NEGLIGIBLE = float(jnp.finfo(jnp.float32).eps)  # a responsibility that float32 sums do not feel


def fit(
    key: Array,
    z: Array,
    *,
    components: int,
    tolerance: float = 0.1,
    regularization: float = 1e-5,
    max_iterations: int = 200,
    restarts: int = 1,
    devices: Devices | None = None,
) -> tuple[GMM, np.ndarray]:
    """Fit by EM from random data points as means, warmed up with identity covariances.

    Args:
        key: of the random starts.
        z: points, [N, D].
        components: K.
        tolerance: EM ends once the mean log-likelihood changes by less.
        regularization: added to the diagonal of the covariances.
        max_iterations: EM ends after as many, if not before.
        restarts: how often to fit; the largest final log-likelihood wins.
        devices: of this process, to share out the points on; None: the first.

    Returns:
        The mixture and the mean log-likelihood at the start of each of its iterations.

    Raises:
        InputError: fewer points than components, or numbers that leave float32.

    Warns:
        Collapsed: as `run`.
    """
    z = jnp.asarray(z, jnp.float32)
    if len(z) < components:
        raise InputError(
            f"a GMM of {components} components needs as many representations, found {len(z)}; "
            "fit fewer components or give more slices"
        )
    fits = []
    with threadpool_limits(1, "blas"):  # on CPU, LAPACK's threads and XLA's block each other
        for restart in jax.random.split(key, restarts):
            start = warm_start(restart, z, components, regularization)
            fits.append(run(z, start, tolerance, regularization, max_iterations, devices))
    return max(fits, key=lambda fit: fit[1][-1])


@partial(jax.jit, static_argnames="components")
def warm_start(key: Array, z: Array, components: int, regularization: float) -> GMM:
    """Random data points as means, then a few EM iterations in which every covariance is I."""
    size = z.shape[1]
    means = jax.random.choice(key, z, (components,), replace=False)
    identities = jnp.broadcast_to(jnp.eye(size), (components, size, size))
    gmm = GMM(jnp.full(components, -jnp.log(components)), means, identities)

    def responsibilities(gmm: GMM) -> Array:
        offset = gmm.log_weights - jnp.square(gmm.means).sum(1) / 2
        return jax.nn.softmax(matmul(z, gmm.means.T) + offset)

    def iteration(_, gmm: GMM) -> GMM:
        return GMM(*_weights_and_means(gmm, z, responsibilities(gmm)), identities)

    gmm = lax.fori_loop(0, WARM_UP, iteration, gmm)
    return m_step(gmm, z, responsibilities(gmm), regularization)


def run(
    z: Array,
    start: GMM,
    tolerance: float,
    regularization: float,
    max_iterations: int,
    devices: Devices | None = None,
) -> tuple[GMM, np.ndarray]:
    """EM on points [N, D] from `start`; returns and stops as `fit` does.

    A component left with less than one point's worth is seeded again, once: it takes over the
    points of the heaviest component that lie beyond the heaviest one's mean along its longest
    axis. The log-likelihood may fall at that iteration, and EM does not stop in the next two.

    Raises:
        InputError: the log-likelihood or the mixture is not finite, with the iteration.

    Warns:
        Collapsed: names each component that was seeded again.
    """
    devices = devices or jax.local_devices()[:1]
    rows = -(-len(z) // len(devices))
    rows += -rows % block(rows)
    padding = len(devices) * rows - len(z)
    points = jnp.pad(z, ((0, padding), (0, 0))).reshape(len(devices), rows, -1)
    real = jnp.pad(jnp.ones(len(z)), (0, padding)).reshape(len(devices), -1)
    on_devices = over_devices(_em, devices, (0, 0, None, None, None, None), None)
    history = jnp.zeros(max_iterations)
    found = on_devices(points, real, start, history, tolerance, regularization)
    gmm, history, iterations, seeded = found
    history = np.asarray(history)[: int(iterations)]
    finite = np.isfinite(history)
    if not finite.all() or not all(np.isfinite(leaf).all() for leaf in gmm):
        first = len(history) if finite.all() else int(finite.argmin())
        raise InputError(
            f"a GMM of {len(seeded)} components: expected finite weights, means and covariances, "
            f"found others after {first} iterations; check the representations for extreme values"
        )
    for component in np.flatnonzero(seeded >= 0):
        warnings.warn(
            f"component {component} of {len(seeded)} was left with less than one point at "
            f"iteration {seeded[component]} of {len(history)} and was seeded again in the heaviest",
            Collapsed,
            stacklevel=2,
        )
    return gmm, history


class Collapsed(UserWarning):
    """A component lost its points and was seeded again."""


def _em(
    z: Array, real: Array, start: GMM, history: Array, tolerance: float, regularization: float
) -> tuple[GMM, Array, Array, Array]:
    """The mixture, the history, its length, and when each component was seeded again or -1.

    The points are this device's, of which those count that are `real`; `history` has a place for
    each iteration.
    """

    def goes_on(state: tuple[GMM, Array, Array, Array]) -> Array:
        _, history, i, seeded = state
        change = jnp.abs(history[i - 1] - history[i - 2])
        settling = i < seeded.max() + 3
        return (i < len(history)) & (settling | (change >= tolerance))

    def iteration(state: tuple[GMM, Array, Array, Array]) -> tuple[GMM, Array, Array, Array]:
        gmm, history, i, seeded = state
        log_likelihoods, responsibilities = e_step(gmm, z)
        mean = _total(log_likelihoods @ real, AXIS) / _total(real.sum(), AXIS)
        responsibilities *= real[:, None]
        empty = (_total(responsibilities.sum(0), AXIS) < 1) & (seeded < 0)
        one = empty.argmax()
        responsibilities, seeded = lax.cond(
            empty.any(),
            lambda: (_seed(z, responsibilities, one), seeded.at[one].set(i)),
            lambda: (responsibilities, seeded),
        )
        gmm = m_step(gmm, z, responsibilities, regularization, AXIS)
        return gmm, history.at[i].set(mean), i + 1, seeded

    never = jnp.full(len(start.means), -1)
    return lax.while_loop(goes_on, iteration, (start, history, 0, never))


def _seed(z: Array, responsibilities: Array, component: Array) -> Array:
    """Responsibilities [N, K] with half of the heaviest component's given to `component`.

    Nothing is given where the heaviest one's points cannot be told apart.
    """
    heaviest = _total(responsibilities.sum(0), AXIS).argmax()
    weight = responsibilities[:, heaviest]
    mean = _total(matmul(weight, z), AXIS) / _total(weight.sum(), AXIS)
    _, axes = jnp.linalg.eigh(_total(_scatters(z, weight[:, None], mean[None])[0], AXIS))
    taken = jnp.where(matmul(z - mean, axes[:, -1]) > 0, weight, 0)
    shares = _total(jnp.stack([taken.sum(), (weight - taken).sum()]), AXIS)
    taken = jnp.where(shares.min() < 1, 0, taken)
    return responsibilities.at[:, heaviest].add(-taken).at[:, component].add(taken)


@jax.jit
def e_step(gmm: GMM, z: Array) -> tuple[Array, Array]:
    """Log-likelihoods of the points [N, D], [N]; each component's responsibilities, [N, K]."""
    joint = component_log_prob(gmm, z)
    responsibilities = jax.nn.softmax(joint)
    sharp = jnp.where(responsibilities > NEGLIGIBLE, responsibilities, 0)
    return jax.nn.logsumexp(joint, axis=1), sharp


@partial(jax.jit, static_argnames="axis_name")
def m_step(
    gmm: GMM,
    z: Array,
    responsibilities: Array,
    regularization: float,
    axis_name: str | None = None,
) -> GMM:
    """Weights, means and covariances from the responsibilities [N, K] of the points [N, D].

    The points are those of all devices of the axis `axis_name`.

    A component left with less than one point's worth keeps the mean and covariance it has in
    `gmm`: the log-likelihood still cannot fall, and nothing is divided by zero.
    """
    log_weights, means = _weights_and_means(gmm, z, responsibilities, axis_name)
    mass = _total(responsibilities.sum(0), axis_name)[:, None, None]
    scatters = _total(_scatters(z, responsibilities, means), axis_name)
    covariances = scatters / jnp.maximum(mass, 1)
    factors = lax.map(lambda c: _precision_factor(c, regularization), covariances)
    return GMM(log_weights, means, jnp.where(mass < 1, gmm.precision_factors, factors))


def _total(summed: Array, axis_name: str | None) -> Array:
    """The sum over the devices of the axis, if there is one."""
    return summed if axis_name is None else lax.psum(summed, axis_name)


def _weights_and_means(
    gmm: GMM, z: Array, responsibilities: Array, axis_name: str | None = None
) -> tuple[Array, Array]:
    mass = _total(responsibilities.sum(0), axis_name)
    log_weights = jnp.log(jnp.maximum(mass, NEGLIGIBLE) / mass.sum())
    means = _total(matmul(responsibilities.T, z), axis_name) / jnp.maximum(mass, 1)[:, None]
    return log_weights, jnp.where(mass[:, None] < 1, gmm.means, means)


def _scatters(z: Array, responsibilities: Array, means: Array) -> Array:
    """sum_n r_nk (z_n - mu_k)(z_n - mu_k)^T of every component, [K, D, D]."""
    size = z.shape[1]
    order = jnp.argsort(responsibilities.argmax(1))
    together = block(len(z))
    padding = -len(z) % together
    rows = jnp.pad(order, (0, padding)).reshape(-1, together)
    weights = jnp.pad(responsibilities[order], ((0, padding), (0, 0))).T

    def of_component(component: tuple[Array, Array]) -> Array:
        mean, weights = component

        def add(total: Array, points: tuple[Array, Array]) -> tuple[Array, None]:
            rows, weight = points

            def larger() -> Array:
                centered = z[rows] - mean
                return total + matmul((weight[:, None] * centered).T, centered)

            return lax.cond(weight.any(), larger, lambda: total), None

        blocks = rows, weights.reshape(rows.shape)
        return lax.scan(add, jnp.zeros((size, size)), blocks)[0]

    return lax.map(of_component, (means, weights))


def _precision_factor(covariance: Array, regularization: float) -> Array:
    """Upper triangular U with U U^T = (Sigma + r I)^-1.

    r is the regularization, raised tenfold for as long as float32 finds the sum singular.
    """
    identity = jnp.eye(len(covariance))

    def cholesky(r: Array) -> Array:
        return jnp.linalg.cholesky(covariance + r * identity)

    def singular(state: tuple[Array, Array]) -> Array:
        return ~jnp.isfinite(state[1]).all() & jnp.isfinite(state[0])

    def raised(state: tuple[Array, Array]) -> tuple[Array, Array]:
        return 10 * state[0], cholesky(10 * state[0])

    start = jnp.float32(regularization)
    _, factor = lax.while_loop(singular, raised, (start, cholesky(start)))
    return solve_triangular(factor, identity, lower=True).T
