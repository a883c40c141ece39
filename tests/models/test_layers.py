import jax
import numpy as np

from cradl_jax.models import layers
from cradl_jax.ops.convolutions import down_native


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_layers_choose_a_form_inside_scan():
    layer, x = layers.Down(4), draw(0, 2, 8, 8, 3)
    variables = layer.init(jax.random.key(1), x)
    _, scanned = jax.lax.scan(lambda c, _: (c, layer.apply(variables, c)), x, None, length=2)
    kernel = variables["params"]["kernel"]
    np.testing.assert_allclose(scanned[1], down_native(x, kernel), rtol=1e-4, atol=1e-5)


def test_batch_statistics_become_the_batch_mean():
    norm, x = layers.NormReLU(), draw(0, 64, 4, 4, 3) * 2 + 5
    variables = norm.init(jax.random.key(0), x, False)
    update = jax.jit(lambda variables: norm.apply(variables, x, True, mutable=["batch_stats"]))
    for _ in range(200):
        _, updated = update(variables)
        variables = {**variables, **updated}
    stats = variables["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(stats["mean"], x.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(stats["var"], x.var((0, 1, 2)), rtol=1e-4)
