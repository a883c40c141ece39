import jax
import jax.numpy as jnp
import numpy as np

from cradl_jax import methods
from cradl_jax.devices.batches import in_batches
from experiments.study.fitting import components


def test_features_of_several_devices_are_those_of_one():
    network = methods.network("cradl", size=16, features=4, latent=8, head=(8, 4), dtype="float32")
    variables = methods.initial_variables(network, 0, 16)
    features_of = methods.features_of(network)
    images = np.random.default_rng(0).uniform(-1.5, 1.5, (13, 16, 16)).astype(np.float32)
    features = np.asarray(features_of(variables, jnp.asarray(images)))
    assert features.shape == (13, 8, 8, 4 + 8 + 4)
    np.testing.assert_array_equal(features[:, 2, 3, 12:], images[:, 4:6, 6:8].reshape(13, 4))
    projection = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
    for count in (1, 2):
        batches = in_batches(
            components(features_of, "dense"),
            (variables, projection),
            images,
            np.arange(13),
            batch_size=8,
            devices=jax.devices()[:count],
        )
        np.testing.assert_allclose(
            np.concatenate(list(batches)), features @ projection, rtol=1e-4, atol=1e-4
        )


def test_maps_are_those_of_the_levels():
    """The first level's map, computed by hand: a convolution, batch normalization and ReLU."""
    network = methods.network("vae", size=16, features=4, latent=8, head=(8, 4), dtype="float32")
    variables = methods.initial_variables(network, 0, 16)
    images = np.random.default_rng(0).uniform(-1.5, 1.5, (2, 16, 16)).astype(np.float32)
    features = methods.features_of(network)(variables, jnp.asarray(images))
    encoder = variables["params"]["encoder"]
    kernel = np.asarray(encoder["Down_0"]["kernel"])[:, :, 0]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (4, 4), (1, 2))[:, ::2, ::2]
    expected = np.einsum("nhwij,ijc->nhwc", windows, kernel) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(features[..., :4], np.maximum(expected, 0), rtol=1e-4, atol=1e-5)
