import jax
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from cradl_jax.densities import realnvp, realnvp_fit
from cradl_jax.errors import InputError

pytestmark = pytest.mark.optimized  # how far a fit overfits depends on the last bits


def banana(seed: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return np.stack([x, x**2 + 0.3 * rng.normal(size=n)], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def trained():
    flow, _ = realnvp_fit.fit(
        jax.random.key(0),
        banana(0, 4096),
        banana(1, 1024),
        hidden=32,
        epochs=20,
        batch_size=128,
        decay_epochs=8,
    )
    return flow


def test_trained_flow_beats_a_gaussian_and_integrates_to_one(trained):
    train, val = banana(0, 4096), banana(2, 4096)
    gaussian = multivariate_normal(train.mean(0), np.cov(train.T)).logpdf(val).mean()
    assert realnvp.log_prob(trained, val).mean() > gaussian + 0.5
    axes = np.linspace(-6, 6, 601), np.linspace(-6, 30, 1201)
    grid = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    density = np.exp(np.float64(realnvp.log_prob(trained, grid.astype(np.float32))))
    assert density.sum() * cell == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("count", [2, 4])
def test_devices_fit_as_one(count):
    settings = {"hidden": 16, "blocks": 2, "epochs": 2, "batch_size": 64, "noise": 0.1}
    train, val = banana(0, 200), banana(1, 50)
    (expected, losses), (flow, flow_losses) = (
        realnvp_fit.fit(jax.random.key(0), train, val, devices=jax.devices()[:n], **settings)
        for n in (1, count)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), flow, expected)
    for name in losses:
        np.testing.assert_allclose(flow_losses[name], losses[name], rtol=1e-5)


def test_a_batch_that_does_not_divide_is_named():
    with pytest.raises(InputError, match="batch size 30 does not divide over 4 devices"):
        realnvp_fit.fit(
            jax.random.key(0), banana(0, 64), banana(1, 8), batch_size=30, devices=jax.devices()
        )


def test_keeps_the_epoch_of_the_smallest_validation_loss():
    train, val = banana(0, 24), banana(1, 512)  # few enough to overfit
    losses = []
    flow, history = realnvp_fit.fit(
        jax.random.key(0),
        train,
        val,
        hidden=64,
        batch_size=8,
        learning_rate=1e-2,
        progress=losses.append,
    )
    assert history["val"][-1] > history["val"].min() + 0.1
    kept = -realnvp.log_prob(flow, val).mean()
    assert kept == pytest.approx(history["val"].min(), rel=1e-4)
    for name in ("train", "val"):
        assert [loss[name] for loss in losses] == list(history[name])


def test_bad_input_is_named():
    with pytest.raises(InputError, match="at least 2 dimensions, found 1"):
        realnvp_fit.fit(jax.random.key(0), np.zeros((8, 1)), np.zeros((8, 1)))
    z = np.full((8, 2), np.nan)
    with pytest.raises(InputError, match=r"finite losses.*nan.* in epoch 1 of 1"):
        realnvp_fit.fit(jax.random.key(0), z, z, hidden=4, epochs=1)
