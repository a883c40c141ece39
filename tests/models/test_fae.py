import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cradl_jax import methods, objectives, scoring
from cradl_jax.augment import views
from cradl_jax.devices.parallel import AXIS
from cradl_jax.losses import ssim
from cradl_jax.methods import initial_variables
from cradl_jax.models.encoder import Encoder
from cradl_jax.models.fae import FAE, FROZEN, with_encoder
from cradl_jax.training.loop import train
from cradl_jax.training.steps import adam, create_state

SHAPE = {"features": 4, "latent": 6, "head": (6, 4), "dtype": "float32"}


def drawn(size, count=3, seed=0):
    return np.random.default_rng(seed).uniform(-1.5, 1.5, (count, size, size)).astype(np.float32)


def frozen(variables):
    return jax.tree.leaves(jax.device_get(variables[FROZEN]))


@pytest.mark.parametrize("size", [16, 24, 32, 40])
def test_every_size_is_reconstructed_and_every_weight_has_a_gradient(size):
    model = FAE(Encoder(4, 6), 4)
    variables, x = initial_variables(model, 0, size), jnp.asarray(drawn(size))

    @jax.jit
    @jax.grad
    def gradient(params):
        whole = {**variables, "params": params}
        (features, x_hat), _ = model.apply(whole, x, True, mutable=["batch_stats"])
        assert x_hat.shape == features.shape and x_hat.dtype == jnp.float32
        return 1 - ssim(features, x_hat).mean()

    for path, leaf in jax.tree.leaves_with_path(gradient(variables["params"])):
        assert np.isfinite(leaf).all() and np.any(leaf), path


def test_features_are_those_of_the_trained_encoder():
    cradl, fae = (methods.network(method, size=16, **SHAPE) for method in ("cradl", "fae"))
    trained, x = initial_variables(cradl, 1, 16), drawn(16)
    fresh = initial_variables(fae, 0, 16)
    variables = with_encoder(fresh, trained)
    expected = methods.features_of(cradl)(trained, x)
    np.testing.assert_array_equal(fae.apply(variables, x)[0], expected)
    assert not np.allclose(fae.apply(fresh, x)[0], expected)
    shapes = [jax.tree.map(np.shape, one) for one in (fresh, variables)]
    assert shapes[0] == shapes[1], "a run is read by the shapes of fresh variables"


def test_training_leaves_the_encoder_as_it_is_to_the_bit():
    model = methods.network("fae", size=16, **SHAPE)
    view = views(mirroring=0.5, shift=0, scale=(0.9, 1.2), rotation=0.1, noise=0)
    objective, optimizer = objectives.fae(model, view), adam(1e-2, 0.1, 0, 4)
    before = initial_variables(model, 0, 16)
    state, slices = create_state(before, optimizer), drawn(16, 16)
    schedule = {"epochs": 2, "batch_size": 8, "seed": 0, "devices": jax.devices()[:2]}
    *_, last = train(state, objective, optimizer, slices, slices[:4], **schedule)
    assert int(last.state.step) == 4
    for found, expected in zip(frozen(last.state.variables), frozen(before), strict=True):
        np.testing.assert_array_equal(found, expected)
    for name in ("params", "batch_stats"):
        pairs = zip(*map(jax.tree.leaves, (last.state.variables[name], before[name])), strict=True)
        assert not any(np.array_equal(*pair) for pair in pairs), name


def test_maps_are_how_unlike_the_features_are_and_of_each_slice_alone():
    model = FAE(Encoder(4, 6, axis_name=AXIS), 4, axis_name=AXIS)
    variables, images = initial_variables(model, 0, 16), drawn(16, 5)
    brains = drawn(16, 5, seed=1) > 0
    scorer = jax.jit(scoring.feature_similarity(model))
    batch = scoring.Batch(images, brains, np.zeros(5, np.float32))
    scores, heatmaps = scorer(variables, batch)
    unlike = 1 - ssim(*model.apply(variables, images)).mean(-1)
    expected = brains * jax.image.resize(unlike, images.shape, "bilinear")
    for name in scoring.own_scores("fae").heatmaps:
        np.testing.assert_allclose(heatmaps[name], expected, atol=1e-5)
    np.testing.assert_allclose(scores["rec"], expected.sum((1, 2)), rtol=1e-5)
    alone = scorer(variables, scoring.Batch(*(part[2:3] for part in batch)))
    np.testing.assert_allclose(alone.heatmaps["rec"][0], heatmaps["rec"][2], atol=1e-5)
