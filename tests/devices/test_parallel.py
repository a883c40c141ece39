"""One, two and four devices do the same: every method's training, its scores and their metrics."""

import jax
import numpy as np
import pytest

from cradl_jax import augment, methods, objectives
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


@pytest.mark.slow  # 24 compilations; test_loop.py has CRADL on one and four
@pytest.mark.parametrize("method", OBJECTIVES)
def test_devices_train_and_score_as_one(slices, method):
    shape = {"size": SIZE, "features": 4, "latent": 8, "head": (16, 8), "dtype": "float32"}
    model = methods.network(method, **shape)
    objective, optimizer = OBJECTIVES[method](model), adam(1e-3, 1e-6, 2, STEPS)
    labels = np.arange(len(slices)) % 3 == 0

    def outcome(count):
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

    expected = outcome(1)
    for count in (2, 4):
        jax.tree.map(
            lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-5, atol=1e-5),
            outcome(count),
            expected,
        )


def test_one_process_has_all_devices_and_asks_nobody():
    tree = {"a": np.arange(3)}
    assert local(jax.devices()) == jax.devices()
    assert any_process(True, False) == [True, False]
    assert across_processes(tree) is tree
