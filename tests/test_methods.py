"""The methods as a config builds them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import cevae, default, phantom, vae
from cradl_jax import methods
from cradl_jax.errors import InputError
from cradl_jax.names import CUTPASTE, METHODS, RESTORERS, VAES, has_encoder
from cradl_jax.scoring import own_scores
from experiments.study import settings


def small(method):
    config = phantom.get_config()
    config.data.size = 16
    config.model.update({"features": 4, "latent": 6, "head": (6, 4)})
    return config, settings.network(config, method)


@pytest.mark.parametrize("method", [method for method in METHODS if has_encoder(method)])
def test_representations_of_every_method_have_the_configured_length(method):
    _, model = small(method)
    encode, images = methods.encoder_of(model), jnp.zeros((3, 16, 16))
    z = jax.eval_shape(lambda: encode(methods.initial_variables(model, 0, 16), images))
    assert z.shape == (3, 6)
    assert bool(methods.own_scorers(model, 1.0)) == (method in VAES)
    assert (own_scores(method) != ((), ())) == (method in VAES)


def test_cevae_is_a_vae_with_another_loss():
    (config, model), (_, other) = small("vae"), small("cevae")
    assert model == other
    images, keys = jnp.zeros((4, 16, 16)), jax.random.split(jax.random.key(1), 4)

    def terms(method):
        variables = methods.initial_variables(model, 0, 16)
        return settings.objective(config, method, model)(variables, images, keys, False)[1][1]

    found, more = (jax.eval_shape(lambda m=m: terms(m)) for m in ("vae", "cevae"))
    assert more.keys() - found.keys() == {"restore"}


@pytest.mark.parametrize("size", [24, 112])
def test_features_lie_on_a_grid_at_every_size(size):
    """Maps are resized as Pillow resizes pictures: bilinear, averaged where they become smaller."""
    config, _ = small("cradl")
    config.data.size = size
    model = settings.network(config, "cradl")
    images = jax.random.uniform(jax.random.key(0), (2, size, size), minval=-1.5, maxval=1.5)
    variables = methods.initial_variables(model, 0, size)
    features = np.asarray(methods.features_of(model)(variables, images))
    grid = {24: 12, 112: 28}[size]
    side = size // grid
    assert features.shape == (2, grid, grid, 4 + 8 + side**2)
    _, state = model.apply(variables, images, method="encode", mutable=["intermediates"])
    maps = state["intermediates"]["encoder"]["maps"]
    for first, channel, one in ((0, 3, maps[0]), (4, 5, maps[1])):
        picture = Image.fromarray(np.asarray(one[1, ..., channel], np.float32))
        expected = np.asarray(picture.resize((grid, grid), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(features[1, ..., first + channel], expected, atol=1e-4)
    np.testing.assert_array_equal(features[..., 12], images[:, ::side, ::side])


@pytest.mark.parametrize("method", METHODS)
def test_all_seeds_share_the_functions_of_a_method_which_compile_once(method):
    (config, model), (other, equal) = small(method), small(method)
    other.seed = 1
    assert model is not equal
    objective = settings.objective(config, method, model)
    assert objective is settings.objective(other, method, equal)
    if has_encoder(method):
        assert methods.encoder_of(model) is methods.encoder_of(equal)
    assert methods.own_scorers(model, 0.5, 2) == methods.own_scorers(equal, 0.5, 2)
    other.augment.rotation = 0.2
    assert objective is not settings.objective(other, method, equal)


def test_overrides_change_their_method_alone():
    config = default.get_config()
    config.overrides.vae.train.warmup_epochs = 3
    assert settings.of_method(config, "vae").train.warmup_epochs == 3
    assert settings.of_method(config, "cevae").train.warmup_epochs == 0
    assert settings.of_method(config, "cradl").train.warmup_epochs == 10
    assert config.train.warmup_epochs == 10


def test_default_follows_the_paper():
    for method, shift in (("cradl", 22 / 128), ("vae", 0), ("cevae", 0)):
        own = settings.of_method(default.get_config(), method)
        assert own.augment.shift == shift
        assert (own.train.learning_rate, own.train.epochs) == (1e-4, 100)
    assert vae.get_config().methods == ("vae",)
    assert cevae.get_config().methods == ("cevae",)


def test_unknown_method_is_named():
    with pytest.raises(InputError, match=rf"one of {', '.join(METHODS)}, found 'gan'"):
        settings.network(default.get_config(), "gan")


def test_runs_of_two_methods_never_share_settings():
    found = [settings.of_run(default.get_config(), method) for method in METHODS]
    assert len({run["method"] for run in found}) == len(METHODS)
    np.testing.assert_equal(found[1] | {"method": "cevae"}, found[2])


def test_only_runs_that_restore_depend_on_how_slices_are_corrupted():
    config, other = default.get_config(), default.get_config()
    other.restoration.noise = 0.3
    for method in METHODS:
        same = settings.of_run(config, method) == settings.of_run(other, method)
        assert same == (method not in RESTORERS)


@pytest.mark.parametrize("method", [CUTPASTE, *RESTORERS])
def test_noisy_views_would_hide_the_brain(method):
    config, model = small(method)
    config.overrides[method].augment.noise = 0.1
    with pytest.raises(InputError, match=rf"{method}\.augment\.noise: expected 0, .* 0\.1"):
        settings.objective(config, method, model)


def test_a_feature_autoencoder_takes_cradls_encoder_and_no_other():
    config, _ = small("fae")
    config.overrides.fae.model = {"features": 8}
    with pytest.raises(InputError, match=r"fae\.model: .*\(features: expected 4, found 8\)"):
        settings.network(config, "fae")


def test_slices_too_small_for_a_feature_autoencoder_are_refused():
    config, _ = small("fae")
    config.data.size = 14
    with pytest.raises(InputError, match=r"at least 16 pixels for fae, .* found 14"):
        settings.network(config, "fae")
