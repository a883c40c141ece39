import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cradl_jax import scoring
from cradl_jax.methods import initial_variables
from cradl_jax.models.unet import UNet
from cradl_jax.scoring import DEGREES, Batch, restoration


def drawn(size, count=3, seed=0):
    return np.random.default_rng(seed).uniform(-1.5, 1.5, (count, size, size)).astype(np.float32)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("size", [8, 10, 24, 32])
def test_every_size_is_restored_and_every_weight_has_a_gradient(size, graded):
    model = UNet(4, graded=graded)
    variables = initial_variables(model, 0, size)
    x, degree = jnp.asarray(drawn(size)), jnp.array([0.1, 0.5, 0.9])

    @jax.jit
    @jax.grad
    def gradient(params):
        whole = {**variables, "params": params}
        x_hat, _ = model.apply(whole, x, degree, True, mutable=["batch_stats"])
        assert x_hat.shape == x.shape and x_hat.dtype == jnp.float32
        return ((x_hat - 1) ** 2).sum()

    for path, leaf in jax.tree.leaves_with_path(gradient(variables["params"])):
        assert np.isfinite(leaf).all() and np.any(leaf), path


def test_half_precision_is_close():
    x = drawn(16)
    whole, half = (UNet(4, dtype=kind) for kind in (jnp.float32, jnp.bfloat16))
    variables = initial_variables(whole, 0, 16)
    expected = whole.apply(variables, x)
    np.testing.assert_allclose(half.apply(variables, x), expected, atol=0.1)
    assert not np.array_equal(half.apply(variables, x), expected)


def test_only_a_graded_network_heeds_the_degree():
    x = drawn(16)
    for graded in (False, True):
        model = UNet(4, graded=graded)
        variables = initial_variables(model, 0, 16)
        low, high = (model.apply(variables, x, jnp.full(3, one)) for one in (0.0, 1.0))
        assert np.array_equal(low, high) != graded
        np.testing.assert_array_equal(low, model.apply(variables, x))


@pytest.mark.parametrize("graded", [False, True])
def test_residuals_are_means_over_degrees_and_of_each_slice_alone(graded):
    model = UNet(4, graded=graded)
    variables, images = initial_variables(model, 0, 16), drawn(16, 5)
    brains = drawn(16, 5, seed=1) > 0
    scorer = jax.jit(restoration(model))
    batch = Batch(images, brains, np.zeros(5, np.float32))
    scores, heatmaps = scorer(variables, batch)
    degrees = DEGREES if graded else (0.0,)
    apart = [np.abs(images - model.apply(variables, images, jnp.full(5, d))) for d in degrees]
    expected = np.mean(apart, axis=0) * brains
    for name in scoring.own_scores("dae").heatmaps:
        np.testing.assert_allclose(heatmaps[name], expected, atol=1e-5)
    np.testing.assert_allclose(scores["rec"], expected.sum((1, 2)), rtol=1e-5)
    alone = scorer(variables, Batch(*(part[2:3] for part in batch)))
    np.testing.assert_allclose(alone.heatmaps["rec"][0], heatmaps["rec"][2], atol=1e-5)
