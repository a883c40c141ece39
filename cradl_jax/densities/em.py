"""Expectation-maximization of Gaussian mixtures (Section 4.3).

Two passes over the data an iteration, each in blocks of rows, so that the memory beyond the data
is a few rows' worth. Representations have hundreds of dimensions, where nearly every point belongs
to one component alone: the M-step visits points sorted by component and skips the blocks that a
component has no part in, which divides its cost by the number of components. The points are split
over the devices, which add up their contributions to each component.
"""

import warnings
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular
from threadpoolctl import threadpool_limits

from cradl_jax.densities.gmm import GMM, block_size, component_log_prob, matmul
from cradl_jax.devices.parallel import AXIS, Devices, over_devices
from cradl_jax.errors import InputError

WARM_UP = 10  # iterations with identity covariances
NEGLIGIBLE = float(jnp.finfo(jnp.float32).eps)  # a responsibility that float32 sums do not feel
SETTLING = 3  # iterations from that which seeds a component, in which EM does not stop


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
        devices: of this process, to split the points over; None: the first.

    Returns:
        The mixture and the mean log-likelihood at the start of each of its iterations.

    Raises:
        InputError: fewer points than components, or numbers that leave float32.

    Warns:
        Collapsed: see `run`.
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
    """Start from random data points as means, with a few EM iterations of identity covariances."""
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
    """Run EM on points [N, D] from `start`; return and stop as `fit` does.

    A component left with less than one point's worth is seeded again, once: it takes over the
    points of the heaviest component that lie beyond the heaviest one's mean along its longest
    axis. The log-likelihood may fall at that iteration, and EM does not stop in the next two.

    Raises:
        InputError: the log-likelihood or the mixture is not finite, with the iteration.

    Warns:
        Collapsed: names each component that was seeded again.
    """
    devices = devices or jax.local_devices()[:1]
    shares = _split_points(z, len(devices))
    history = jnp.zeros(max_iterations)
    on_devices = over_devices(_run_on_device, devices, (0, 0, None, None, None, None), None)
    gmm, history, iterations, seeded = on_devices(
        *shares, start, history, tolerance, regularization
    )
    history, seeded = np.asarray(history)[: int(iterations)], np.asarray(seeded)
    _require_finite(gmm, history)
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


def _split_points(z: Array, devices: int) -> tuple[Array, Array]:
    """Split points [N, D] into [devices, n, D]; the second result, [devices, n], is 0 for padding.

    Every share is padded to whole blocks.
    """
    rows = -(-len(z) // devices)
    rows += -rows % block_size(rows)
    padding = devices * rows - len(z)
    points = jnp.pad(z, ((0, padding), (0, 0))).reshape(devices, rows, -1)
    return points, jnp.pad(jnp.ones(len(z)), (0, padding)).reshape(devices, -1)


def _require_finite(gmm: GMM, history: np.ndarray) -> None:
    """Raise an InputError that names the iteration after which a number was not finite."""
    finite = np.isfinite(history)
    if finite.all() and all(np.isfinite(leaf).all() for leaf in gmm):
        return
    iterations = len(history) if finite.all() else int(finite.argmin())
    raise InputError(
        f"a GMM of {len(gmm.means)} components: expected finite weights, means and covariances, "
        f"found others after {iterations} iterations; check the representations for extreme values"
    )


class _State(NamedTuple):
    """EM after some iterations.

    Attributes:
        gmm: the mixture.
        history: mean log-likelihood at the start of each iteration, with a place for every one.
        iterations: how many are done.
        seeded: the iteration in which each component was seeded again, or -1, [K].
    """

    gmm: GMM
    history: Array
    iterations: Array | int
    seeded: Array


def _run_on_device(
    z: Array, real: Array, start: GMM, history: Array, tolerance: float, regularization: float
) -> _State:
    """Iterate until EM stops on this device's points [n, D], of which those count that are `real`.

    All devices return the same state.
    """
    never = jnp.full(len(start.means), -1)
    return lax.while_loop(
        partial(_goes_on, tolerance=tolerance),
        partial(_iterate, z=z, real=real, regularization=regularization),
        _State(start, history, 0, never),
    )


def _goes_on(state: _State, *, tolerance: float) -> Array:
    """Tell whether the log-likelihood still changes, or will because a component was seeded."""
    _, history, done, seeded = state
    change = jnp.abs(history[done - 1] - history[done - 2])
    settling = done < seeded.max() + SETTLING
    return (done < len(history)) & (settling | (change >= tolerance))


def _iterate(state: _State, *, z: Array, real: Array, regularization: float) -> _State:
    """Do the E-step, seed a component that lost its points, and do the M-step."""
    gmm, history, done, seeded = state
    log_likelihoods, responsibilities = e_step(gmm, z)
    mean = _total(log_likelihoods @ real, AXIS) / _total(real.sum(), AXIS)
    responsibilities *= real[:, None]
    empty = (_total(responsibilities.sum(0), AXIS) < 1) & (seeded < 0)
    component = empty.argmax()
    responsibilities, seeded = lax.cond(
        empty.any(),
        lambda: (_seed(z, responsibilities, component), seeded.at[component].set(done)),
        lambda: (responsibilities, seeded),
    )
    gmm = m_step(gmm, z, responsibilities, regularization, AXIS)
    return _State(gmm, history.at[done].set(mean), done + 1, seeded)


def _seed(z: Array, responsibilities: Array, component: Array) -> Array:
    """Give half of the heaviest component's responsibilities to `component`; both [N, K].

    Nothing is given where the heaviest one's points cannot be told apart.
    """
    heaviest = _total(responsibilities.sum(0), AXIS).argmax()
    weight = responsibilities[:, heaviest]
    given = jnp.where(_beyond_mean(z, weight), weight, 0)
    halves = _total(jnp.stack([given.sum(), (weight - given).sum()]), AXIS)
    given = jnp.where(halves.min() < 1, 0, given)
    return responsibilities.at[:, heaviest].add(-given).at[:, component].add(given)


def _beyond_mean(z: Array, weight: Array) -> Array:
    """Tell which points [N, D] of weights [N] lie beyond their mean along their longest axis."""
    mean = _total(matmul(weight, z), AXIS) / _total(weight.sum(), AXIS)
    _, axes = jnp.linalg.eigh(_total(_scatters(z, weight[:, None], mean[None])[0], AXIS))
    return matmul(z - mean, axes[:, -1]) > 0


@jax.jit
def e_step(gmm: GMM, z: Array) -> tuple[Array, Array]:
    """Return the log-likelihoods of points [N, D], [N], and the responsibilities, [N, K]."""
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
    """Update weights, means and covariances by the responsibilities [N, K] of points [N, D].

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
    """Return the sum over the devices of the axis, if there is one."""
    return summed if axis_name is None else lax.psum(summed, axis_name)


def _weights_and_means(
    gmm: GMM, z: Array, responsibilities: Array, axis_name: str | None = None
) -> tuple[Array, Array]:
    """Return log-weights [K] and means [K, D]; a component without points keeps its mean."""
    mass = _total(responsibilities.sum(0), axis_name)
    log_weights = jnp.log(jnp.maximum(mass, NEGLIGIBLE) / mass.sum())
    means = _total(matmul(responsibilities.T, z), axis_name) / jnp.maximum(mass, 1)[:, None]
    return log_weights, jnp.where(mass[:, None] < 1, gmm.means, means)


def _scatters(z: Array, responsibilities: Array, means: Array) -> Array:
    """Return sum_n r_nk (z_n - mu_k)(z_n - mu_k)^T of every component, [K, D, D]."""
    size = z.shape[1]
    order = jnp.argsort(responsibilities.argmax(1))
    size_of_block = block_size(len(z))
    padding = -len(z) % size_of_block
    rows = jnp.pad(order, (0, padding)).reshape(-1, size_of_block)
    weights = jnp.pad(responsibilities[order], ((0, padding), (0, 0))).T

    def of_component(component: tuple[Array, Array]) -> Array:
        mean, weights = component

        def add(total: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
            rows, weight = block

            def add_block() -> Array:
                centered = z[rows] - mean
                return total + matmul((weight[:, None] * centered).T, centered)

            return lax.cond(weight.any(), add_block, lambda: total), None

        blocks = rows, weights.reshape(rows.shape)
        return lax.scan(add, jnp.zeros((size, size)), blocks)[0]

    return lax.map(of_component, (means, weights))


def _precision_factor(covariance: Array, regularization: float) -> Array:
    """Return the upper triangular U with U U^T = (Sigma + r I)^-1.

    r is the regularization, raised tenfold for as long as float32 finds the sum singular.
    """
    identity = jnp.eye(len(covariance))

    def cholesky(r: Array) -> Array:
        return jnp.linalg.cholesky(covariance + r * identity)

    def singular(state: tuple[Array, Array]) -> Array:
        return ~jnp.isfinite(state[1]).all() & jnp.isfinite(state[0])

    def raise_tenfold(state: tuple[Array, Array]) -> tuple[Array, Array]:
        return 10 * state[0], cholesky(10 * state[0])

    start = jnp.float32(regularization)
    _, factor = lax.while_loop(singular, raise_tenfold, (start, cholesky(start)))
    return solve_triangular(factor, identity, lower=True).T
