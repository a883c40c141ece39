import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from cradl_jax.models.encoder import Encoder, levels
from cradl_jax.models.simclr import SimCLR


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
