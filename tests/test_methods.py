"""The three methods as a config builds them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cevae, default, phantom, vae
from cradl_jax.errors import InputError
from experiments import methods, runs


def small(method):
    config = phantom.get_config()
    config.data.size = 16
    config.model.update({"features": 4, "latent": 6, "head": (6, 4)})
    return config, methods.build(config, method)


@pytest.mark.parametrize("method", methods.METHODS)
def test_representations_of_every_method_have_the_configured_length(method):
    config, built = small(method)
    images = jnp.zeros((3, 16, 16))
    z = jax.eval_shape(
        lambda: built.model.apply(
            runs.initial_variables(config, built.model), images, method="encode"
        )
    )
    assert z.shape == (3, 6)
    assert (built.scorer is None) == (method == "cradl")


def test_cevae_is_a_vae_with_another_loss():
    (config, plain), (_, restoring) = small("vae"), small("cevae")
    assert plain.model == restoring.model
    images, keys = jnp.zeros((4, 16, 16)), jax.random.split(jax.random.key(1), 4)

    def terms(method):
        variables = runs.initial_variables(config, method.model)
        return method.objective(variables, images, keys, False)[1][1]

    found, more = (jax.eval_shape(lambda m=m: terms(m)) for m in (plain, restoring))
    assert more.keys() - found.keys() == {"restore"}


def test_overrides_change_their_method_alone():
    config = default.get_config()
    config.overrides.vae.train.warmup_epochs = 3
    assert methods.settings_of(config, "vae").train.warmup_epochs == 3
    assert methods.settings_of(config, "cevae").train.warmup_epochs == 0
    assert methods.settings_of(config, "cradl").train.warmup_epochs == 10
    assert config.train.warmup_epochs == 10


def test_default_follows_the_paper():
    for method, shift in (("cradl", 22 / 128), ("vae", 0), ("cevae", 0)):
        own = methods.settings_of(default.get_config(), method)
        assert own.augment.shift == shift
        assert (own.train.learning_rate, own.train.epochs) == (1e-4, 100)
    assert vae.get_config().methods == ("vae",)
    assert cevae.get_config().methods == ("cevae",)


def test_unknown_method_is_named():
    with pytest.raises(InputError, match=r"expected some of .*cevae.*, found 'gan'"):
        methods.build(default.get_config(), "gan")


def test_runs_of_two_methods_never_share_settings():
    found = [runs.settings(default.get_config(), method) for method in methods.METHODS]
    assert len({setting["method"] for setting in found}) == 3
    np.testing.assert_equal(found[1] | {"method": "cevae"}, found[2])
