import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from cradl_jax.densities import em, gmm
from cradl_jax.errors import InputError
from tests.helpers.mixtures import (
    REGULARIZATION,
    clusters,
    covariances,
    reference_log_prob,
    started,
)

CASES = [(2500, 24, 4, 1), (2501, 24, 4, 4), (300, 2, 1, 1), (301, 2, 1, 2)]


@pytest.mark.parametrize(("n", "size", "components", "devices"), CASES)
def test_em_equals_scikit_learn_from_the_same_start(n, size, components, devices):
    """On any number of devices, over which the points divide or not."""
    z = clusters(n, n, size, components)
    start = started(z, components)
    oracle = GaussianMixture(
        components,
        tol=0,
        max_iter=7,
        reg_covar=REGULARIZATION,
        weights_init=softmax(np.float64(start.log_weights)),
        means_init=np.float64(start.means),
        precisions_init=np.linalg.inv(covariances(start)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        oracle.fit(np.float64(z))
    mixture, history = em.run(z, start, 0.0, REGULARIZATION, 7, jax.devices()[:devices])
    assert len(history) == 7
    np.testing.assert_allclose(np.exp(mixture.log_weights), oracle.weights_, atol=1e-5)
    np.testing.assert_allclose(mixture.means, oracle.means_, atol=1e-4)
    np.testing.assert_allclose(covariances(mixture), oracle.covariances_, atol=2e-4)
    np.testing.assert_allclose(history[-1], oracle.lower_bound_, rtol=1e-5)
    log_prob = gmm.log_prob(mixture, z)
    np.testing.assert_allclose(log_prob, oracle.score_samples(z), rtol=1e-4, atol=2e-3)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000))
def test_log_likelihood_never_falls(seed):
    z = clusters(seed, 1500, 9)
    _, history = em.run(z, started(z, 3, seed), 0.0, REGULARIZATION, 12)
    assert (np.diff(history) > -1e-4).all()


def test_stops_once_the_log_likelihood_changes_by_less_than_the_tolerance():
    z = clusters(0, 1500, 9)
    _, history = em.run(z, started(z, 3), 1e-3, REGULARIZATION, 200)
    changes = np.abs(np.diff(history))
    assert 2 < len(history) < 200
    assert changes[-1] < 1e-3
    assert (changes[:-1] >= 1e-3).all()


@pytest.mark.parametrize("n", [1024, 1025])
def test_blocks_and_their_padding_do_not_show(n):
    z = clusters(2, n, 5)
    mixture = started(z, 3)
    log_likelihoods, responsibilities = em.e_step(mixture, jnp.asarray(z))
    expected = reference_log_prob(mixture, z)
    np.testing.assert_allclose(log_likelihoods, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(responsibilities.sum(1), 1, atol=1e-5)

    r, z64 = np.float64(responsibilities), np.float64(z)
    updated = em.m_step(mixture, jnp.asarray(z), responsibilities, REGULARIZATION)
    np.testing.assert_allclose(np.exp(updated.log_weights), r.mean(0), rtol=1e-5)
    for k, covariance in enumerate(covariances(updated)):
        expected = np.cov(z64.T, aweights=r[:, k], bias=True) + REGULARIZATION * np.eye(5)
        np.testing.assert_allclose(updated.means[k], np.average(z64, 0, r[:, k]), atol=1e-5)
        np.testing.assert_allclose(covariance, expected, rtol=1e-4, atol=1e-5)


def test_recovers_a_known_mixture_and_restarts_keep_the_best():
    rng = np.random.default_rng(0)
    centers = np.array([[0, 0, 8], [0, 8, 0], [8, 0, 0], [-8, -8, 0]])
    label = rng.choice(4, size=4000, p=[0.4, 0.3, 0.2, 0.1])
    z = centers[label] + rng.normal(size=(4000, 3)) * [1, 0.5, 2]
    key = jax.random.key(1)
    mixture, history = em.fit(key, z, components=4, tolerance=1e-4, restarts=6)
    singles = [
        em.run(jnp.float32(z), em.warm_start(k, jnp.float32(z), 4, 1e-5), 1e-4, 1e-5, 200)[1][-1]
        for k in jax.random.split(key, 6)
    ]
    assert history[-1] == pytest.approx(max(singles), abs=1e-4)
    order = np.argsort(-np.asarray(mixture.log_weights))
    np.testing.assert_allclose(np.exp(mixture.log_weights)[order], [0.4, 0.3, 0.2, 0.1], atol=0.02)
    np.testing.assert_allclose(mixture.means[order], centers, atol=0.4)
    for covariance in covariances(mixture):
        np.testing.assert_allclose(np.diag(covariance), [1, 0.25, 4], rtol=0.25)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_nearly_singular_data(scale):
    rng = np.random.default_rng(0)
    z = scale * rng.normal(size=(3000, 6)) @ rng.normal(size=(6, 128)).astype(np.float32)
    mixture, history = em.fit(jax.random.key(0), z, components=4)
    assert np.isfinite(history).all()
    assert all(np.isfinite(leaf).all() for leaf in mixture)
    assert np.isfinite(gmm.log_prob(mixture, z)).all()


def test_more_components_than_the_data_have_points_to_spare():
    z = np.repeat(clusters(5, 4, 3), 5, axis=0)  # 20 points in 4 places
    mixture, history = em.fit(jax.random.key(0), z, components=8)
    assert np.isfinite(history).all()
    assert all(np.isfinite(leaf).all() for leaf in mixture)
    assert np.exp(mixture.log_weights).sum() == pytest.approx(1, abs=1e-5)


def test_an_emptied_component_keeps_its_place():
    z = clusters(6, 200, 3)
    start = started(z, 2)
    responsibilities = np.zeros((200, 2), np.float32)
    responsibilities[:, 0] = 1
    mixture = em.m_step(start, jnp.asarray(z), jnp.asarray(responsibilities), REGULARIZATION)
    np.testing.assert_array_equal(mixture.means[1], start.means[1])
    np.testing.assert_array_equal(mixture.precision_factors[1], start.precision_factors[1])
    np.testing.assert_allclose(mixture.means[0], z.mean(0), atol=1e-5)
    np.testing.assert_allclose(covariances(mixture)[0], np.cov(z.T, bias=True), atol=1e-4)


@pytest.mark.parametrize("devices", [1, 4])
def test_a_component_that_collapses_is_seeded_again_in_the_heaviest_one(devices):
    """Three clusters; one component has two of them, one is far from all points."""
    rng = np.random.default_rng(0)
    centers = np.array([[-6, 0, 0], [6, 0, 0], [0, 30, 0]])
    z = np.repeat(centers, [400, 400, 200], axis=0) + rng.normal(size=(1000, 3))
    means = np.float32([[0, 0, 0], [0, 30, 0], [500, 500, 500]])
    start = gmm.GMM(
        np.log(np.float32([0.6, 0.3, 0.1])),
        means,
        np.float32([np.eye(3)] * 3) / [[[6]], [[1]], [[1]]],
    )
    start = jax.tree.map(jnp.float32, start)
    with pytest.warns(em.Collapsed, match="component 2 of 3 .* iteration 0 of") as caught:
        mixture, history = em.run(
            jnp.float32(z), start, 1e-4, REGULARIZATION, 100, jax.devices()[:devices]
        )
    assert len(caught) == 1
    order = np.lexsort(np.round(np.asarray(mixture.means)).T[::-1])
    np.testing.assert_allclose(mixture.means[order], centers[[0, 2, 1]], atol=0.3)
    np.testing.assert_allclose(np.exp(mixture.log_weights)[order], [0.4, 0.2, 0.4], atol=0.01)
    assert (np.diff(history[1:]) > -1e-4).all()  # it may fall where a component is seeded alone


def test_a_component_that_cannot_be_filled_is_seeded_once(recwarn):
    z = jnp.float32(np.repeat(clusters(5, 1, 3), 50, axis=0))  # one place, nothing to share
    start = gmm.GMM(
        jnp.log(jnp.float32([0.9, 0.1])),
        jnp.stack([z[0], z[0] + 1000]),
        jnp.stack([jnp.eye(3)] * 2),
    )
    mixture, history = em.run(z, start, 0.0, REGULARIZATION, 10)
    assert [warning.category for warning in recwarn] == [em.Collapsed]
    assert np.isfinite(history).all() and len(history) == 10
    np.testing.assert_array_equal(mixture.means[1], start.means[1])


def test_numbers_that_leave_float32_are_named_with_their_iteration():
    z = jnp.float32(1e25 * np.random.default_rng(0).normal(size=(50, 3)))
    with pytest.raises(InputError, match=r"GMM of 2 components.* found others after 0 iterations"):
        em.fit(jax.random.key(0), z, components=2)


def test_fewer_points_than_components_is_named():
    with pytest.raises(InputError, match=r"12 components.*found 10"):
        em.fit(jax.random.key(0), clusters(7, 10, 2), components=12)
