"""Objectives beyond the paper against scikit-learn and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from cradl_jax import corruptions, methods, objectives

KEYS = jax.random.split(jax.random.key(0), 6)


def as_it_is(key, image):
    return image


@pytest.fixture(scope="module")
def images():
    tissue = np.random.default_rng(0).uniform(-1.4, 1.4, (6, 16, 16)).astype(np.float32)
    tissue[:, :3] = 0
    return jnp.asarray(tissue)


def network(method):
    shape = {"size": 16, "features": 4, "latent": 6, "head": (8, 5), "dtype": "float32"}
    model = methods.network(method, **shape)
    return model, methods.initial_variables(model, 0, 16)


def test_cutpaste_tells_three_kinds_of_slices_apart(images):
    model, variables = network("cutpaste")
    objective = objectives.cutpaste(model, as_it_is)
    loss, (_, terms) = jax.jit(objective, static_argnums=3)(variables, images, KEYS, False)
    _, box_keys, scar_keys = jax.vmap(lambda key: jax.random.split(key, 3), out_axes=1)(KEYS)
    kinds = (
        images,
        jax.vmap(corruptions.cut_paste)(box_keys, images),
        jax.vmap(corruptions.cut_paste_scar)(scar_keys, images),
    )
    logits = np.concatenate([model.apply(variables, kind) for kind in kinds])
    assert logits.shape == (18, 3)
    labels, shares = np.repeat([0, 1, 2], 6), np.asarray(jax.nn.softmax(logits))
    np.testing.assert_allclose(loss, log_loss(labels, shares), rtol=1e-5)
    np.testing.assert_allclose(terms["accuracy"], accuracy_score(labels, shares.argmax(1)))


def test_mae_is_judged_by_what_it_does_not_see(images):
    model, variables = network("mae")
    objective = jax.jit(objectives.mae(model, as_it_is), static_argnums=3)
    loss, (_, terms) = objective(variables, images, KEYS, False)
    _, mask_keys = jax.vmap(jax.random.split, out_axes=1)(KEYS)
    hidden = np.stack([corruptions.hidden_blocks(key, 16) for key in mask_keys])
    x_hat = model.apply(variables, np.where(hidden, 0, images))
    expected = np.mean((np.asarray(images) - x_hat)[hidden] ** 2)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert terms == {}
    other, _ = objective(variables, jnp.where(hidden, 1.0, images), KEYS, False)
    np.testing.assert_allclose(other, np.mean((1 - np.asarray(x_hat))[hidden] ** 2), rtol=1e-5)
