from functools import partial

import jax
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.signal import correlate

from cradl_jax.ops import convolutions

UP_NATIVE, UP_WINOGRAD, UP_PATCHES = (
    partial(convolutions.adjoint, form)
    for form in (convolutions.down_native, convolutions.down_winograd, convolutions.down_patches)
)
every_up = pytest.mark.parametrize(
    ("up", "features"),
    [(UP_NATIVE, 2), (UP_WINOGRAD, 2), (UP_PATCHES, 1)],
)


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize(
    ("form", "width", "channels"),
    [
        (convolutions.down_native, 12, 3),
        (convolutions.down_native, 10, 3),
        (convolutions.down_winograd, 10, 3),  # the products of the taps
        (convolutions.down_winograd, 12, 3),  # two outputs from three products
        (convolutions.down_winograd, 16, 3),  # four from five
        (convolutions.down_winograd, 8, 65),  # two again, for so many channels
        (convolutions.down_patches, 12, 1),
        (convolutions.down_patches, 10, 1),
    ],
)
def test_down_is_a_strided_correlation(form, width, channels):
    x, kernel = draw(0, 1, 8, width, channels), draw(1, 4, 4, channels, 2)
    padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)))
    full = np.stack(
        [correlate(padded, kernel[..., o], mode="valid")[..., 0] for o in range(2)], axis=-1
    )
    rounding = max(1e-5, 1e-6 * (16 * channels) ** 0.5)  # of so many products of about 1
    found = jax.jit(form)(x, kernel)[0]
    np.testing.assert_allclose(found, full[::2, ::2], rtol=1e-4, atol=rounding)


@every_up
@pytest.mark.parametrize("width", [5, 6, 8])
def test_up_adds_the_kernel_at_every_second_pixel(up, features, width):
    x, kernel = draw(0, 1, 4, width, 3), draw(1, 4, 4, features, 3)
    expected = np.zeros((10, 2 * width + 2, features))
    for row, column in np.ndindex(4, width):
        added = np.asarray(kernel) @ np.asarray(x)[0, row, column]
        expected[2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += added
    found = jax.jit(up)(x, kernel)[0]
    np.testing.assert_allclose(found, expected[1:-1, 1:-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("native", "products", "before", "after"),
    [
        (convolutions.down_native, convolutions.down_winograd, 3, 5),
        (convolutions.down_native, convolutions.down_patches, 1, 5),
        (UP_NATIVE, UP_WINOGRAD, 3, 5),
        (UP_NATIVE, UP_PATCHES, 3, 1),
    ],
)
@pytest.mark.parametrize("width", [4, 8, 10])
def test_gradients_of_both_forms_agree(native, products, before, after, width):
    kernel = (after, before) if native is UP_NATIVE else (before, after)
    x, kernel = draw(0, 2, 8, width, before), draw(1, 4, 4, *kernel)
    expected, found = (
        jax.jit(jax.grad(lambda x, k, f=form: (f(x, k) ** 3).sum(), (0, 1)))(x, kernel)
        for form in (native, products)
    )
    jax.tree.map(
        lambda e, f: np.testing.assert_allclose(f, e, rtol=2e-3, atol=1e-2), expected, found
    )


@pytest.mark.parametrize(("channels", "products"), [(2, False), (16, True)])
def test_on_a_cpu_small_convolutions_are_native_and_others_products(channels, products):
    x, kernel = draw(0, 1, 16, 16, channels), draw(1, 4, 4, channels, 2 * channels)
    down = jax.jit(convolutions.down).lower(x, kernel).as_text()
    up = jax.jit(convolutions.up).lower(down_shape(x), kernel.swapaxes(2, 3)).as_text()
    for text in (down, up):
        assert ("stablehlo.dot_general" in text) == products
        assert ("stablehlo.convolution" in text) != products


def down_shape(x):
    return x[:, ::2, ::2]


@every_up
def test_gradients_of_up_equal_finite_differences(up, features):
    x, kernel = draw(0, 1, 4, 4, 3), draw(1, 4, 4, features, 3)
    check_grads(jax.jit(up), (x, kernel), order=1, modes=["rev"], rtol=1e-2, atol=1e-2)


def test_a_batch_may_be_mapped():
    x, kernel = draw(0, 3, 8, 8, 2), draw(1, 4, 4, 2, 4)
    down = jax.jit(convolutions.down_winograd)
    mapped = jax.vmap(lambda image: down(image[None], kernel)[0])(x)
    np.testing.assert_allclose(mapped, down(x, kernel), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "factor"), [(4, 5), (10, 5), (12, 5), (16, 10), (24, 10)])
def test_fewer_products_round_like_float32(size, factor):
    x, kernel = draw(0, 4, size, size, 64), draw(1, 4, 4, 64, 8) / 32
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (4, 4), (1, 2))[:, ::2, ::2]
    exact = np.einsum("nijchw,hwco->nijo", windows, np.asarray(kernel, np.float64))
    errors = [
        (jax.jit(form)(x, kernel) - exact).std() / exact.std()
        for form in (convolutions.down_native, convolutions.down_winograd)
    ]
    assert errors[1] < factor * errors[0] < 4e-6
