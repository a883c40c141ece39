import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from cradl_jax.models.encoder import Encoder
from cradl_jax.models.layers import Collapse
from cradl_jax.models.simclr import SimCLR
from cradl_jax.models.sizes import levels, nearest


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


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


def halved(size):
    """Halve a side of 8 pixels or more down to 4, 5, 6 or 7; None where it cannot be."""
    count = 0
    while size > 7 and size % 2 == 0:
        size, count = size // 2, count + 1
    return (count, size) if 4 <= size <= 7 and count else None


def test_image_sizes_are_those_that_halve_to_4_to_7_pixels():
    fit = [size for size in range(1200) if halved(size)]
    assert fit[:9] == [8, 10, 12, 14, 16, 20, 24, 28, 32] and {96, 128, 160, 192} <= {*fit}
    for size in range(1024):
        if found := halved(size):
            assert (levels(size), size >> levels(size)) == found
            assert nearest(size) == (size,)
        else:
            around = [s for s in fit if s < size][-1:] + [s for s in fit if s > size][:1]
            assert nearest(size) == tuple(around)
            with pytest.raises(ValueError, match=f"found {size}"):
                levels(size)


@pytest.mark.parametrize(
    ("size", "close"), [(100, "are 96 and 112"), (33, "are 32 and 40"), (4, "is 8")]
)
def test_a_size_that_does_not_fit_is_refused_with_the_nearest(size, close):
    expected = f"4, 5, 6 or 7 times a power of two, from 8 on (the nearest {close})"
    with pytest.raises(ValueError) as caught:
        Encoder().init(jax.random.key(0), jnp.zeros((1, size, size)))
    assert str(caught.value) == f"image size: expected {expected}, found {size}"


def with_statistics(variables, seed):
    """Variables whose running means and variances are those of a trained network: not 0 and 1."""
    leaves, tree = jax.tree.flatten(variables["batch_stats"])
    drawn = [0.5 + jnp.abs(draw(seed + n, *leaf.shape)) for n, leaf in enumerate(leaves)]
    return variables | {"batch_stats": jax.tree.unflatten(tree, drawn)}


def normalized(x, layer, variables):
    """Batch normalization by the running statistics, and ReLU, by their formula."""
    weights, kept = (variables[name][layer]["BatchNorm_0"] for name in ("params", "batch_stats"))
    scaled = (x - kept["mean"]) / jnp.sqrt(kept["var"] + 1e-5) * weights["scale"]
    return jnp.maximum(scaled + weights["bias"], 0)


def convolution(x, kernel, stride, padding):
    how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "precision": "highest"}
    return lax.conv_general_dilated(x, kernel, (stride, stride), [(padding, padding)] * 2, **how)


@pytest.mark.parametrize("size", [14, 40, 96, 128, 160, 192])
def test_encoder_is_the_convolutions_of_xla_at_every_size(size):
    """A stride of 2 down to 4 to 7 pixels, then a convolution of all that is left."""
    model, x = Encoder(4, 6), draw(0, 2, size, size)
    variables = with_statistics(jax.jit(model.init)(jax.random.key(1), x), 2)
    params, h = variables["params"], x[..., None]
    for level in range(halved(size)[0]):
        h = convolution(h, params[f"Down_{level}"]["kernel"], 2, 1)
        h = normalized(h, f"NormReLU_{level}", variables)
    last = params["Collapse_0"]
    assert h.shape[1:3] == last["kernel"].shape[:2] == (halved(size)[1],) * 2
    expected = convolution(h, last["kernel"], 1, 0)[:, 0, 0] + last["bias"]
    found = jax.jit(model.apply)(variables, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * jnp.abs(expected).max())


def test_representations_start_with_the_variance_of_the_last_map():
    """Whatever the side of the kernel: its deviation is that of its number of inputs."""
    for size in (8, 10, 12, 14):
        layer, x = Collapse(2000), draw(size, 1, size // 2, size // 2, 5)
        z, _ = layer.init_with_output(jax.random.key(1), x)
        np.testing.assert_allclose(z.std(), jnp.sqrt((x**2).mean()), rtol=0.1)


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
