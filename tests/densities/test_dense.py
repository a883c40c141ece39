import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import mahalanobis
from sklearn.decomposition import PCA

from cradl_jax.densities import dense
from cradl_jax.errors import InputError

HEIGHTS = np.array([0.1, 0.5, 0.9], np.float32)


def slices(count, seed=0):
    """Features [count, 2, 3, 4] that are correlated and change with height, and their positions."""
    rng = np.random.default_rng(seed)
    position = rng.uniform(0, 1, count).astype(np.float32)
    mixing = rng.normal(size=(2, 3, 4, 4))
    features = np.einsum("hwij,nhwj->nhwi", mixing, rng.normal(size=(count, 2, 3, 4)))
    return (features + 2 * position[:, None, None, None]).astype(np.float32), position


def shares(position):
    """Return the weight of each slice at each knot, [N, K], by hand."""
    step = HEIGHTS[1] - HEIGHTS[0]
    inside = np.clip(position, HEIGHTS[0], HEIGHTS[-1]).astype(float)
    return np.maximum(1 - np.abs(inside[:, None] - HEIGHTS.astype(float)) / step, 0)


def numpy_statistics(features, position):
    """Return means [K, 2, 3, 4] and covariances [K, 2, 3, 4, 4] by NumPy, the ridge included."""
    weights = shares(position)
    mean, covariance = np.empty((3, 2, 3, 4)), np.empty((3, 2, 3, 4, 4))
    for k, h, w in np.ndindex(3, 2, 3):
        points = features[:, h, w].astype(float)
        mean[k, h, w] = np.average(points, axis=0, weights=weights[:, k])
        covariance[k, h, w] = np.cov(points.T, aweights=weights[:, k], ddof=0)
    squares = covariance.diagonal(axis1=-2, axis2=-1) + mean**2
    overall = (squares.mean((0, 1, 2)) - mean.mean((0, 1, 2)) ** 2).mean()
    return mean, covariance + (dense.RIDGE * overall + dense.EPSILON) * np.eye(4)


@pytest.fixture(scope="module")
def fitted():
    return dense.fit(HEIGHTS, [slices(200)])


def test_means_and_covariances_are_those_of_numpy(fitted):
    mean, covariance = numpy_statistics(*slices(200))
    np.testing.assert_allclose(fitted.mean, mean, atol=1e-5)
    white = np.asarray(fitted.whitening, float)
    assert not np.triu(white, 1).any()
    precision = np.swapaxes(white, -1, -2) @ white
    np.testing.assert_allclose(np.linalg.inv(precision), covariance, rtol=1e-3, atol=1e-4)


def test_distances_are_those_of_scipy_at_a_knot_between_two_and_beyond(fitted):
    features, _ = slices(5, seed=1)
    position = np.array([0.5, 0.3, 0.2, 0.95, 0.0], np.float32)
    mean, covariance = numpy_statistics(*slices(200))
    squared = np.empty((5, 3, 2, 3))
    for n, k, h, w in np.ndindex(squared.shape):
        inverse = np.linalg.inv(covariance[k, h, w])
        squared[n, k, h, w] = mahalanobis(features[n, h, w], mean[k, h, w], inverse) ** 2
    expected = np.sqrt(np.einsum("nk,nkhw->nhw", shares(position), squared))
    np.testing.assert_allclose(dense.distance(fitted, features, position), expected, rtol=1e-3)


def test_fit_depends_neither_on_batches_nor_on_order(fitted):
    features, position = slices(200)
    order = np.argsort(position)
    parts = [(features[rows], position[rows]) for rows in np.array_split(order, 7)]
    for again, once in zip(dense.fit(HEIGHTS, parts), fitted, strict=True):
        np.testing.assert_allclose(again, once, rtol=1e-3, atol=1e-4)


def test_a_slice_depends_on_no_other(fitted):
    features, position = slices(6, seed=2)
    together = dense.distance(fitted, features, position)
    for n in range(6):
        alone = dense.distance(fitted, features[n : n + 1], position[n : n + 1])
        np.testing.assert_allclose(alone[0], together[n], rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.floats(-1e6, 1e6, width=32), st.floats(-1, 2, width=32))
def test_distances_are_finite_also_where_training_had_no_variance(value, position):
    constant = dense.fit(HEIGHTS, [(np.zeros((9, 2, 2, 1)), np.linspace(0.1, 0.9, 9))])
    found = dense.distance(constant, np.full((1, 2, 2, 1), value), np.full(1, position))
    assert np.isfinite(found).all() and (found >= 0).all()


def test_heights_are_as_many_as_the_slices_carry():
    position = np.linspace(0.2, 0.8, 400)
    for dimensions, count in ((1, 24), (4, 12), (16, 3), (100, 2)):
        heights = dense.knots(position, dimensions)
        assert len(heights) == count
        np.testing.assert_allclose(heights, np.linspace(0.2, 0.8, count), rtol=1e-6)


def test_a_gap_between_heights_is_named():
    features, _ = slices(4)
    message = "training slices: .* near every height of the brain, found a gap between two of 3"
    for batches in ([(features, np.float32([0.1, 0.1, 0.9, 0.9]))], []):
        with pytest.raises(InputError, match=message):
            dense.fit(HEIGHTS, batches)


def test_principal_components_are_those_of_scikit_learn(monkeypatch):
    monkeypatch.setattr(dense, "COMPONENTS", 3)
    features, _ = slices(60)
    features *= np.float32([1, 10, 0.1, 3])  # the units of a feature make no difference
    projection = np.asarray(dense.principal([features[:13], features[13:]]))
    rows = features.reshape(-1, 4).astype(float)
    components = PCA(3).fit(rows / rows.std(0)).components_
    signs = np.sign((projection * rows.std(0)[:, None] * components.T).sum(0))
    expected = signs * components.T / rows.std(0)[:, None]
    np.testing.assert_allclose(projection, expected, rtol=1e-3, atol=1e-3)


def test_constant_features_have_no_component_that_is_not_finite():
    assert np.isfinite(dense.principal([np.ones((2, 3, 3, 2), np.float32)])).all()


def test_joint_distance_adds_half_the_pixels_to_that_of_the_components():
    rng = np.random.default_rng(3)
    features = rng.normal(size=(50, 4, 4, 5)).astype(np.float32)
    images = rng.normal(size=(50, 8, 8)).astype(np.float32)
    position = np.linspace(0.1, 0.9, 50, dtype=np.float32)
    projection = rng.normal(size=(5, 2)).astype(np.float32)
    joint = dense.Joint(
        jnp.asarray(projection),
        dense.fit(HEIGHTS, [(features @ projection, position)]),
        dense.fit(HEIGHTS, [(images[..., None], position)]),
    )
    far = dense.distance(joint.features, features[:3] @ projection, position[:3])
    single = dense.distance(joint.pixels, images[:3, ..., None], position[:3])
    expected = jax.image.resize(far / np.sqrt(2), (3, 8, 8), "bilinear") + single / 2
    args = (jnp.asarray(features[:3]), jnp.asarray(images[:3]), position[:3])
    np.testing.assert_allclose(dense.joint_distance(joint, *args), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "side"),
    [
        *((8, 2), (16, 2), (64, 2), (128, 4), (256, 8)),
        *((10, 2), (56, 2), (80, 4), (96, 3), (112, 4), (160, 5), (192, 6), (224, 7)),
    ],
)
def test_the_grid_has_at_most_32_positions_a_side(size, side):
    assert dense.patch_side(size) == side
    assert size // side <= 32 and size % side == 0, "the patches cover the image"


@pytest.mark.parametrize("side", [1, 2, 4])
def test_patches_hold_their_pixels(side):
    images = np.arange(2 * 8 * 8, dtype=np.float32).reshape(2, 8, 8)
    found = dense.patches(jnp.asarray(images), side)
    for n, row, column in np.ndindex(2, 8 // side, 8 // side):
        block = images[n, row * side : (row + 1) * side, column * side : (column + 1) * side]
        np.testing.assert_array_equal(found[n, row, column], block.ravel())
    assert found.shape == (2, 8 // side, 8 // side, side**2)
