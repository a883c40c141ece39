"""One, two and four devices do the same: every method's training, its scores and their metrics."""

import jax
import numpy as np
import pytest

from cradl_jax import augment, methods, objectives
from cradl_jax.devices import parallel
from cradl_jax.devices.batches import in_batches
from cradl_jax.devices.parallel import AXIS, across_processes, any_process, local
from cradl_jax.evaluation import metrics
from cradl_jax.names import has_encoder
from cradl_jax.training.loop import train
from cradl_jax.training.steps import adam, create_state

SIZE, STEPS = 16, 20
VIEW = augment.views(mirroring=0.5, shift=0.1, scale=(0.9, 1.2), rotation=0.1, noise=0.05)
CLEAN = augment.views(mirroring=0.5, shift=0, scale=(0.9, 1.2), rotation=0.1, noise=0)
OBJECTIVES = {
    "cradl": lambda model: objectives.simclr(model, VIEW, 0.5, AXIS),
    "vae": lambda model: objectives.vae(model, VIEW, 1.0),
    "cevae": lambda model: objectives.cevae(model, VIEW, 1.0, 1.0),
    "cutpaste": lambda model: objectives.cutpaste(model, CLEAN),
    "mae": lambda model: objectives.mae(model, CLEAN),
    "dae": lambda model: objectives.dae(model, CLEAN, 0.6),
    "disyre": lambda model: objectives.disyre(model, CLEAN, AXIS),
    "fae": lambda model: objectives.fae(model, CLEAN),
}


@pytest.fixture(scope="module")
def slices():
    noise = np.random.default_rng(0).normal(size=(44, 4, 4)).astype(np.float32)
    return np.clip(np.kron(noise, np.ones((4, 4), np.float32)), -1.5, 1.5)


def restored(model):
    def rows(variables, images):
        *_, last = jax.tree.leaves(model.apply(variables, images))
        return last.reshape(len(images), -1)

    return rows


def outcome(slices, method, count):
    """Train a method and score slices on so many devices; return all that comes of it."""
    shape = {"size": SIZE, "features": 4, "latent": 8, "head": (16, 8), "dtype": "float32"}
    model = methods.network(method, **shape)
    objective, optimizer = OBJECTIVES[method](model), adam(1e-3, 1e-6, 2, STEPS)
    labels = np.arange(len(slices)) % 3 == 0
    devices = jax.devices()[:count]
    state = create_state(methods.initial_variables(model, 0, SIZE), optimizer)
    settings = {"epochs": 5, "batch_size": 8, "seed": 3, "devices": devices}
    *_, last = train(state, objective, optimizer, slices[:32], slices[32:], **settings)
    assert int(last.state.step) == STEPS
    variables = jax.device_get(last.state.variables)
    encode = methods.encoder_of(model) if has_encoder(method) else restored(model)
    z = in_batches(encode, variables, slices, np.arange(44), 16, devices)
    z = np.concatenate(list(z))
    return variables, last.train, last.val, z, metrics.binary_metrics(z[:, 0], labels)


@pytest.mark.slow  # 24 compilations; test_loop.py has CRADL on one and four
@pytest.mark.parametrize("method", OBJECTIVES)
def test_devices_train_and_score_as_one(slices, method):
    expected = outcome(slices, method, 1)
    for count in (2, 4):
        jax.tree.map(
            lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-5, atol=1e-5),
            outcome(slices, method, count),
            expected,
        )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cradl", "vae"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_training_through_the_other_door_is_the_same(slices, shard_map, method, count):
    expected = outcome(slices, method, count)
    shard_map()
    jax.tree.map(np.testing.assert_array_equal, outcome(slices, method, count), expected)


@pytest.fixture
def shard_map(monkeypatch):
    """Let the door open on shard_map from now on, and break what it does not need."""

    def switch():
        monkeypatch.setenv("CRADL_SHARD_MAP", "1")
        monkeypatch.setattr(jax, "pmap", None)

    return switch


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("out", [0, None])
def test_both_doors_lead_to_the_same(slices, shard_map, count, out):
    devices = jax.devices()[:count]
    rows = slices[:40].reshape(count, 40 // count, -1)
    arguments = (np.float32(0.3), {"rows": rows})
    expected = parallel.over_devices(_loss_and_gradient, devices, (None, 0), out)(*arguments)
    shard_map()
    found = parallel.over_devices(_loss_and_gradient, devices, (None, 0), out)(*arguments)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert jax.tree.leaves(found)[0].shape == (() if out is None else (count,))


def test_a_jax_without_pmap_has_the_other_door(slices, monkeypatch):
    monkeypatch.delattr(jax, "pmap")
    rows = slices[:40].reshape(4, 10, -1)
    run = parallel.over_devices(_loss_and_gradient, jax.devices(), (None, 0), None)
    loss, gradient = run(np.float32(0.3), {"rows": rows})
    np.testing.assert_allclose(loss, np.cos(0.3 * rows).mean(), rtol=1e-5)
    np.testing.assert_allclose(gradient, -(rows * np.sin(0.3 * rows)).mean(), rtol=1e-4)


def _loss_and_gradient(factor, batch):
    """The mean over all devices and its derivative; each sees rows of its own."""

    def loss(factor):
        return jax.lax.pmean(jax.numpy.cos(factor * batch["rows"]).mean(), AXIS)

    return jax.lax.pmean(jax.value_and_grad(loss)(factor), AXIS)


def test_one_process_has_all_devices_and_asks_nobody():
    tree = {"a": np.arange(3)}
    assert local(jax.devices()) == jax.devices()
    assert any_process(True, False) == [True, False]
    assert across_processes(tree) is tree
