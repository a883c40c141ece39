import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cradl_jax import augment, objectives
from cradl_jax.losses import elbo, kl_divergence, reconstruction
from cradl_jax.models.encoder import Encoder
from cradl_jax.models.vae import VAE, Decoder, Posterior

MODEL = VAE(Encoder(4, 2 * 6), Decoder(16, 4))
apply = jax.jit(MODEL.apply, static_argnames="method")


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 16, 16)))


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (5, 16, 16), minval=-1.5, maxval=1.5)


def unchanged(key, image):
    return image


def test_decoder_has_the_layers_of_table_10():
    variables = jax.eval_shape(lambda: Decoder(128).init(jax.random.key(0), jnp.zeros((1, 512))))
    params = variables["params"]
    kernels = [params["Expand_0"]["kernel"].shape]
    kernels += [params[f"Up_{level}"]["kernel"].shape for level in range(5)]
    assert kernels == [
        (4, 4, 1024, 512),
        (4, 4, 512, 1024),
        (4, 4, 256, 512),
        (4, 4, 128, 256),
        (4, 4, 64, 128),
        (4, 4, 1, 64),
    ]
    image = jax.eval_shape(lambda v: Decoder(128).apply(v, jnp.zeros((3, 512))), variables)
    assert image.shape == (3, 128, 128)


@pytest.mark.parametrize("size", [10, 28, 96, 160])
def test_decoder_mirrors_the_encoder_at_every_size(size):
    """Its layers are convolutions of XLA over images spread out by zeros, from 4 to 7 pixels on."""
    model, z = Decoder(size, 4), jax.random.normal(jax.random.key(1), (2, 6))
    variables = jax.jit(model.init)(jax.random.key(0), z)
    params = variables["params"]
    shapes = jax.eval_shape(
        lambda: Encoder(4, 6).init(jax.random.key(0), jnp.zeros((1, size, size)))
    )
    last = shapes["params"]["Collapse_0"]["kernel"].shape
    h = jnp.einsum("nd,hwcd->nhwc", z, params["Expand_0"]["kernel"])
    assert h.shape[1:] == last[:3]
    for level in range(len(params) // 2):
        h = jnp.maximum(h / jnp.sqrt(1 + 1e-5), 0)  # the statistics of a network not yet trained
        kernel = params[f"Up_{level}"]["kernel"][::-1, ::-1].swapaxes(2, 3)
        h = jax.lax.conv_general_dilated(
            *(h, kernel, (1, 1), [(2, 2), (2, 2)]),
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )
    expected = 1.5 * np.tanh(np.asarray(h[..., 0] + params[f"Up_{level}"]["bias"]) / 2)
    found = jax.jit(model.apply)(variables, z)
    assert found.shape == (2, size, size)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_reconstructions_stay_in_the_range_of_the_images(variables):
    z = 100 * jax.random.normal(jax.random.key(2), (8, 6))
    decoded = apply(variables, z, method="decode")
    assert jnp.abs(decoded).max() <= 1.5


def test_kl_divergence_is_the_expected_log_ratio():
    mean, deviation = np.array([[0.3, -1.2]]), np.array([[0.5, 1.7]])
    grid = np.linspace(-30, 30, 200_001)
    expected = 0.0
    for m, s in zip(mean[0], deviation[0], strict=True):
        q = stats.norm(m, s)
        expected += np.trapezoid(q.pdf(grid) * (q.logpdf(grid) - stats.norm.logpdf(grid)), grid)
    found = kl_divergence(Posterior(jnp.asarray(mean), jnp.log(jnp.asarray(deviation) ** 2)))
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_elbo_terms_by_hand(images):
    x, x_hat = np.asarray(images, np.float64), np.asarray(images[::-1], np.float64)
    mean = np.random.default_rng(0).normal(size=(5, 6))
    log_variance = np.random.default_rng(1).normal(size=(5, 6))
    rec = np.mean([np.sum(np.abs(a - b)) for a, b in zip(x, x_hat, strict=True)])
    kl = np.mean(np.sum(np.exp(log_variance) + mean**2 - 1 - log_variance, axis=1)) / 2
    posterior = Posterior(jnp.asarray(mean), jnp.asarray(log_variance))
    loss, terms = elbo(images, images[::-1], posterior, beta=0.3)
    np.testing.assert_allclose(terms["rec"], rec, rtol=1e-5)
    np.testing.assert_allclose(terms["kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(loss, rec + 0.3 * kl, rtol=1e-5)


def test_samples_have_the_posteriors_moments():
    posterior = Posterior(jnp.full((20_000, 2), 3.0), jnp.full((20_000, 2), np.log(0.25)))
    draws = posterior.sample(jax.random.split(jax.random.key(0), 20_000))
    np.testing.assert_allclose(draws.mean(0), 3.0, atol=0.02)
    np.testing.assert_allclose(draws.std(0), 0.5, rtol=0.02)


def test_cut_out_paints_one_to_three_rectangles():
    keys = jax.random.split(jax.random.key(0), 400)
    blank = jnp.full((32, 24), 9.0)
    painted = np.asarray(jax.jit(jax.vmap(augment.cut_out, (0, None)))(keys, blank))
    changed = painted != 9.0
    values = np.array([len(np.unique(p[c])) for p, c in zip(painted, changed, strict=True)])
    assert values.min() == 1 and values.max() == 3
    assert np.abs(painted[changed]).max() <= 1.5
    single = changed[values == 1]
    for mask in single:  # one rectangle: the product of its rows and its columns
        rows, columns = mask.any(1), mask.any(0)
        np.testing.assert_array_equal(mask, rows[:, None] & columns)
        assert rows.sum() <= 17 and columns.sum() <= 13


def test_vae_objective_is_equation_7(variables, images):
    keys = jax.random.split(jax.random.key(3), 5)
    objective = jax.jit(objectives.vae(MODEL, unchanged, 0.5), static_argnums=3)
    loss, (_, terms) = objective(variables, images, keys, False)
    np.testing.assert_allclose(loss, terms["rec"] + 0.5 * terms["kl"], rtol=1e-6)
    _, posterior = apply(variables, images, method="reconstruct")
    np.testing.assert_allclose(terms["kl"], kl_divergence(posterior).mean(), rtol=1e-5)


def test_cevae_objective_adds_the_restoration_of_equation_8(variables, images):
    keys = jax.random.split(jax.random.key(3), 5)
    objective = jax.jit(objectives.cevae(MODEL, unchanged, 0.5, gamma=2.0), static_argnums=3)
    loss, (_, terms) = objective(variables, images, keys, False)
    np.testing.assert_allclose(
        loss, terms["rec"] + 0.5 * terms["kl"] + 2 * terms["restore"], rtol=1e-6
    )
    masked = jax.jit(jax.vmap(augment.cut_out))(
        jax.vmap(lambda key: jax.random.split(key, 3)[2])(keys), images
    )
    restored, _ = apply(variables, masked, method="reconstruct")
    expected = reconstruction(images, restored).mean()
    np.testing.assert_allclose(terms["restore"], expected, rtol=1e-5)
