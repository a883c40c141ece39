import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.signal import correlate

from cradl_jax.models import layers
from cradl_jax.models.encoder import Encoder, levels
from cradl_jax.models.simclr import SimCLR

every_up = pytest.mark.parametrize(
    ("up", "features"),
    [(layers.up_native, 2), (layers.up_winograd, 2), (layers.up_patches, 1)],
)


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize(
    ("form", "width", "channels"),
    [
        (layers.down_native, 12, 3),
        (layers.down_winograd, 12, 3),  # two outputs from three products
        (layers.down_winograd, 16, 3),  # four from five
        (layers.down_winograd, 8, 65),  # two again, for so many channels
        (layers.down_patches, 12, 1),
    ],
)
def test_down_is_a_strided_correlation(form, width, channels):
    x, kernel = draw(0, 1, 8, width, channels), draw(1, 4, 4, channels, 2)
    padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)))
    full = np.stack(
        [correlate(padded, kernel[..., o], mode="valid")[..., 0] for o in range(2)], axis=-1
    )
    np.testing.assert_allclose(form(x, kernel)[0], full[::2, ::2], rtol=1e-4, atol=1e-5)


@every_up
@pytest.mark.parametrize("width", [6, 8])
def test_up_adds_the_kernel_at_every_second_pixel(up, features, width):
    x, kernel = draw(0, 1, 4, width, 3), draw(1, 4, 4, features, 3)
    expected = np.zeros((10, 2 * width + 2, features))
    for row, column in np.ndindex(4, width):
        added = np.asarray(kernel) @ np.asarray(x)[0, row, column]
        expected[2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += added
    np.testing.assert_allclose(up(x, kernel)[0], expected[1:-1, 1:-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("native", "products", "before", "after"),
    [
        (layers.down_native, layers.down_winograd, 3, 5),
        (layers.down_native, layers.down_patches, 1, 5),
        (layers.up_native, layers.up_winograd, 3, 5),
        (layers.up_native, layers.up_patches, 3, 1),
    ],
)
@pytest.mark.parametrize("width", [4, 8])
def test_gradients_of_both_forms_agree(native, products, before, after, width):
    kernel = (after, before) if native is layers.up_native else (before, after)
    x, kernel = draw(0, 2, 8, width, before), draw(1, 4, 4, *kernel)
    expected, found = (
        jax.grad(lambda x, k, f=form: (f(x, k) ** 3).sum(), (0, 1))(x, kernel)
        for form in (native, products)
    )
    jax.tree.map(
        lambda e, f: np.testing.assert_allclose(f, e, rtol=2e-3, atol=1e-2), expected, found
    )


@every_up
def test_gradients_of_up_equal_finite_differences(up, features):
    x, kernel = draw(0, 1, 4, 4, 3), draw(1, 4, 4, features, 3)
    check_grads(up, (x, kernel), order=1, modes=["rev"], rtol=1e-2, atol=1e-2)


def test_a_batch_may_be_mapped():
    x, kernel = draw(0, 3, 8, 8, 2), draw(1, 4, 4, 2, 4)
    mapped = jax.vmap(lambda image: layers.down_winograd(image[None], kernel)[0])(x)
    np.testing.assert_allclose(mapped, layers.down_winograd(x, kernel), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "factor"), [(4, 5), (16, 10)])
def test_fewer_products_round_like_float32(size, factor):
    x, kernel = draw(0, 4, size, size, 64), draw(1, 4, 4, 64, 8) / 32
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (4, 4), (1, 2))[:, ::2, ::2]
    exact = np.einsum("nijchw,hwco->nijo", windows, np.asarray(kernel, np.float64))
    errors = [
        (form(x, kernel) - exact).std() / exact.std()
        for form in (layers.down_native, layers.down_winograd)
    ]
    assert errors[1] < factor * errors[0] < 4e-6


def test_layers_choose_a_form_inside_scan():
    layer, x = layers.Down(4), draw(0, 2, 8, 8, 3)
    variables = layer.init(jax.random.key(1), x)
    _, scanned = jax.lax.scan(lambda c, _: (c, layer.apply(variables, c)), x, None, length=2)
    kernel = variables["params"]["kernel"]
    np.testing.assert_allclose(scanned[1], layers.down_native(x, kernel), rtol=1e-4, atol=1e-5)


def test_encoder_has_the_layers_of_table_10():
    variables = jax.eval_shape(lambda: Encoder().init(jax.random.key(0), jnp.zeros((1, 128, 128))))
    kernels = [variables["params"][f"Down_{level}"]["kernel"].shape for level in range(5)] + [
        variables["params"]["Collapse_0"]["kernel"].shape
    ]
    assert kernels == [
        (4, 4, 1, 64),
        (4, 4, 64, 128),
        (4, 4, 128, 256),
        (4, 4, 256, 512),
        (4, 4, 512, 1024),
        (4, 4, 1024, 512),
    ]
    # the kernels, the last bias, scale and bias of the batch normalizations
    count = sum(16 * c * o for _, _, c, o in kernels) + 512 + 2 * (64 + 128 + 256 + 512 + 1024)
    assert count == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("size", [0, 4, 12, 100, 130])
def test_image_size_must_be_a_power_of_two(size):
    with pytest.raises(ValueError, match=f"found {size}"):
        levels(size)


def test_representation_does_not_depend_on_the_batch():
    model = SimCLR(Encoder(4, 16), (8, 4))
    x = draw(0, 5, 32, 32)
    variables = jax.jit(model.init)(jax.random.key(1), x)
    encode = jax.jit(lambda x: model.apply(variables, x, method="encode"))
    together, alone = encode(x), encode(x[2:3])
    np.testing.assert_allclose(together[2:3], alone, rtol=1e-5, atol=1e-6)


def test_encoder_gradient_equals_finite_differences():
    model, x = Encoder(2, 4), draw(0, 2, 16, 16)
    variables = jax.jit(model.init)(jax.random.key(1), x)
    encode = jax.jit(lambda x: model.apply(variables, x))
    check_grads(encode, (x,), order=1, modes=["rev"], rtol=2e-2, eps=1e-3)


def test_batch_statistics_become_the_batch_mean():
    norm, x = layers.NormReLU(), draw(0, 64, 4, 4, 3) * 2 + 5
    variables = norm.init(jax.random.key(0), x, False)
    for _ in range(200):
        _, updated = norm.apply(variables, x, True, mutable=["batch_stats"])
        variables = {**variables, **updated}
    stats = variables["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(stats["mean"], x.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(stats["var"], x.var((0, 1, 2)), rtol=1e-4)
