import jax
import numpy as np
import optax
import pytest

from cradl_jax.training.steps import adam


@pytest.mark.parametrize("annealing", [True, False])
@pytest.mark.parametrize("warmup", [0, 4])
def test_learning_rate_warms_up_and_then_stays_or_falls(warmup, annealing):
    """Under a gradient that stays the same Adam's step is the learning rate."""
    optimizer = adam(1e-2, 0.0, warmup, total_steps=12, annealing=annealing)
    params, gradient = {"bias": np.zeros(1, np.float32)}, {"bias": np.ones(1, np.float32)}
    state, steps = optimizer.init(params), []
    for _ in range(12):
        updates, state = optimizer.update(gradient, state, params)
        steps.append(-float(updates["bias"][0]))
    step = np.arange(12)
    falling = (1 + np.cos(np.pi * (step - warmup) / (12 - warmup))) / 2 if annealing else 1.0
    expected = 1e-2 * np.where(step < warmup, step / max(warmup, 1), falling)
    np.testing.assert_allclose(steps, expected, rtol=1e-4, atol=1e-8)


def test_weight_decay_is_coupled_and_spares_biases():
    params = {"kernel": np.full((2, 2), 3.0, np.float32), "bias": np.full(2, 3.0, np.float32)}
    optimizer = adam(1e-2, 0.1, warmup_steps=0, total_steps=10)
    zero = jax.tree.map(np.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    # Adam's first step has length lr in the direction of the decayed gradient, whatever its size.
    np.testing.assert_allclose(updates["kernel"], -1e-2, rtol=1e-4)
    np.testing.assert_array_equal(updates["bias"], 0)


def test_learning_rate_warms_up_then_anneals():
    optimizer = adam(1.0, 0.0, warmup_steps=4, total_steps=20)
    params = np.ones((1, 1), np.float32)
    state, sizes = optimizer.init(params), []
    for _ in range(21):
        updates, state = optimizer.update(np.ones_like(params), state, params)
        sizes.append(-float(updates[0, 0]))
    expected = [step / 4 for step in range(4)]
    expected += [(1 + np.cos(np.pi * step / 16)) / 2 for step in range(17)]
    np.testing.assert_allclose(sizes, expected, atol=2e-3)
    assert isinstance(optimizer, optax.GradientTransformation)
