import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cradl_jax.devices.batches import in_batches, on_their_way, one_ahead
from cradl_jax.models.encoder import Encoder


@pytest.fixture(scope="module")
def encoder():
    model = Encoder(4, 6)
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16)))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
@pytest.mark.parametrize("count", [1, 4])
def test_batches_and_devices_do_not_change_a_result(encoder, batch_size, count):
    model, variables = encoder
    images = np.random.default_rng(0).uniform(-1.5, 1.5, (7, 16, 16)).astype(np.float32)
    rows = np.array([6, 0, 3, 3, 1])
    results = in_batches(
        model.apply, variables, images, rows, batch_size=batch_size, devices=jax.devices()[:count]
    )
    expected = model.apply(variables, images)[rows]
    np.testing.assert_allclose(np.concatenate(list(results)), expected, rtol=1e-4, atol=1e-5)


def test_one_item_is_made_ahead_and_a_fault_comes_in_its_place():
    made = []

    def items():
        for number in range(3):
            made.append(number)
            yield number
        raise OSError("gone")

    ahead, found = one_ahead(items()), []
    with pytest.raises(OSError, match="gone"):
        for number in ahead:
            found.append(number)
            assert max(made) <= number + 1
    assert found == made == [0, 1, 2]


def test_a_result_comes_when_the_next_one_is_begun():
    begun = []

    def results():
        for number in range(3):
            begun.append(number)
            yield {"double": jnp.full(2, 2 * number)}

    found = []
    for result in on_their_way(results()):
        found.append(float(result["double"][0]))
        assert len(begun) == min(len(found) + 1, 3)
    assert found == [0, 2, 4] and list(on_their_way([])) == []
