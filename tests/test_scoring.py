import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.ndimage import median_filter

from cradl_jax import scoring
from cradl_jax.densities import dense
from cradl_jax.models.encoder import Encoder
from cradl_jax.models.vae import VAE, Decoder
from cradl_jax.names import LOCAL, PATCHES
from cradl_jax.postprocess import postprocess


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    images = rng.uniform(-1.5, 1.5, (7, 16, 16)).astype(np.float32)
    return scoring.Batch(images, np.abs(images) > 0.2, np.linspace(0, 1, 7, dtype=np.float32))


@pytest.fixture(scope="module")
def vae():
    model = VAE(Encoder(4, 2 * 6), Decoder(16, 4))
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16)))


def central_differences(score, image, pixels, step=1e-2):
    def at(pixel, change):
        return float(score(image.at[pixel].add(change)[None])[0])

    return [(at(pixel, step) - at(pixel, -step)) / (2 * step) for pixel in pixels]


PIXELS = [(0, 0), (3, 8), (9, 2), (15, 15)]


def test_gradient_heatmap_equals_central_differences(batch, vae):
    model, variables = vae

    @jax.jit
    def score(x):
        return (model.apply(variables, x, method="encode") ** 2).sum(-1)

    _, gradient = scoring.with_gradient(score, jnp.asarray(batch.images))
    expected = central_differences(score, jnp.asarray(batch.images[2]), PIXELS)
    np.testing.assert_allclose([gradient[2][p] for p in PIXELS], expected, rtol=2e-2, atol=2e-3)


def test_vae_scores_follow_table_9(batch, vae):
    model, variables = vae
    scores, heatmaps = jax.jit(scoring.vae(model, 0.5))(variables, batch)

    x = batch.images.astype(np.float64)
    mean, log_variance = (
        np.asarray(part, np.float64) for part in model.apply(variables, x, method="posterior")
    )
    x_hat = np.asarray(model.apply(variables, mean, method="decode"), np.float64)
    rec = np.abs(x - x_hat).sum((1, 2))
    kl = (np.exp(log_variance) + mean**2 - 1 - log_variance).sum(1) / 2
    np.testing.assert_allclose(scores["rec"], rec, rtol=1e-4)
    np.testing.assert_allclose(scores["kl"], kl, rtol=1e-4)
    np.testing.assert_allclose(scores["elbo"], rec + 0.5 * kl, rtol=1e-4)
    np.testing.assert_allclose(heatmaps["rec"], np.abs(x - x_hat), atol=1e-4)
    np.testing.assert_allclose(heatmaps["combi"], heatmaps["kl_grad"] * heatmaps["rec"], rtol=1e-5)

    def divergence(images):
        mean, log_variance = model.apply(variables, images, method="posterior")
        return 0.5 * (jnp.exp(log_variance) + mean**2 - 1 - log_variance).sum(-1)

    expected = np.abs(
        central_differences(jax.jit(divergence), jnp.asarray(batch.images[1]), PIXELS)
    )
    found = [heatmaps["kl_grad"][1][p] for p in PIXELS]
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-3)


def test_a_slice_is_restored_to_what_is_likelier_inside_the_brain(batch):
    """A prior with its minimum at 0 draws each pixel there, unless it is held to its neighbours."""
    y, brains = jnp.asarray(batch.images), batch.brains
    x = scoring.restore(lambda x: 10 * (x**2).sum((1, 2)), y, brains, 60)
    np.testing.assert_array_equal(x[~brains], y[~brains])
    assert np.abs(x[brains]).max() < 0.2
    alone = scoring.restore(lambda x: 10 * (x**2).sum((1, 2)), y[3:4], brains[3:4], 60)
    np.testing.assert_allclose(x[3:4], alone, atol=1e-6)
    weight = scoring.FIDELITY / 2
    held = scoring.restore(lambda x: weight * (x**2).sum((1, 2)), y, brains, 60)
    free = y * np.prod(1 - 2 * weight * scoring.RATE * (1 - np.arange(60) / 60))
    assert np.abs(held - y)[brains].mean() < 0.2 * np.abs(free - y)[brains].mean()


def test_the_first_step_of_a_restoration_descends_the_negative_elbo(batch, vae):
    """The total variation of what changes is flat where nothing has changed."""
    model, variables = vae
    changed = scoring.restored(model, 0.5, 1)(variables, batch).heatmaps["restored"]

    @jax.jit
    def negative_elbo(x):
        ones = jnp.ones(x.shape, bool), jnp.zeros(len(x))
        return scoring.vae(model, 0.5)(variables, scoring.Batch(x, *ones)).scores["elbo"]

    inside = [(row, column) for row, column in np.argwhere(batch.brains[1])[::40]]
    expected = central_differences(negative_elbo, jnp.asarray(batch.images[1]), inside, 2e-3)
    found = [changed[1][pixel] for pixel in inside]
    np.testing.assert_allclose(found, scoring.RATE * np.abs(expected), rtol=0.05, atol=1e-4)


def test_baselines(batch):
    fitted = {
        name: dense.fit(np.float32([0, 1]), [(dense.patches(batch.images, side), batch.position)])
        for name, side in PATCHES.items()
    }
    scores, heatmaps = scoring.baseline(fitted, batch)
    assert np.argmax(scores["position"]) == 3  # the middle of the brain
    np.testing.assert_array_equal(scores["area"], batch.brains.sum((1, 2)))
    np.testing.assert_array_equal(heatmaps["intensity"], np.abs(batch.images))
    for image, brain, found in zip(*batch[:2], heatmaps["equalized"], strict=True):
        ranks = stats.rankdata(image[brain], "min") - 1
        np.testing.assert_allclose(found[brain], ranks / brain.sum(), rtol=1e-6)
        assert not np.asarray(found)[~brain].any()
    for name, side in PATCHES.items():
        far = dense.distance(fitted[name], dense.patches(batch.images, side), batch.position)
        if side == 1:
            np.testing.assert_allclose(heatmaps[name], far, rtol=1e-6)
        assert heatmaps[name].shape == batch.images.shape


@pytest.mark.parametrize("name", sorted(LOCAL))
def test_local_maps_of_a_scan_are_averaged_and_their_maximum_is_the_score(name):
    rng = np.random.default_rng(2)
    maps = {key: rng.uniform(0, 1, (7, 16, 16)).astype(np.float32) for key in (name, "rec")}
    maps[name][:, :4] = 0  # the background
    scored = scoring.over_scan(scoring.Scored({"rec": np.arange(7.0)}, maps))
    weights = {0: 4, 1: 3, 2: 2, 3: 1}
    usual = 1 if name in ("rec_scan", "restored") else statistics.median(maps[name][:, 4:].ravel())
    for n in range(7):
        near = {m: weights[abs(m - n)] for m in range(7) if abs(m - n) in weights}
        expected = sum(w * maps[name][m] for m, w in near.items()) / sum(near.values()) / usual
        np.testing.assert_allclose(scored.heatmaps[name][n], expected, rtol=1e-5)
        assert scored.scores[name][n] == pytest.approx(expected.max(), rel=1e-5)
    assert scored.heatmaps["rec"] is maps["rec"]
    np.testing.assert_array_equal(scored.scores["rec"], np.arange(7.0))


def test_maps_of_the_paper_are_averaged_if_asked_for_and_local_ones_not_twice():
    rng = np.random.default_rng(3)
    maps = {name: rng.uniform(0, 1, (5, 8, 8)).astype(np.float32) for name in ("dense", "rec")}
    scored = scoring.Scored({"rec": np.arange(5.0)}, maps)
    plain, averaged = scoring.over_scan(scored), scoring.over_scan(scored, 1)
    rec = maps["rec"]
    np.testing.assert_allclose(averaged.heatmaps["rec"][0], (2 * rec[0] + rec[1]) / 3, rtol=1e-6)
    expected = (rec[1] + 2 * rec[2] + rec[3]) / 4
    np.testing.assert_allclose(averaged.heatmaps["rec"][2], expected, rtol=1e-6)
    np.testing.assert_array_equal(averaged.heatmaps["dense"], plain.heatmaps["dense"])
    for name, scores in plain.scores.items():
        np.testing.assert_array_equal(averaged.scores[name], scores)


def test_only_maps_of_the_paper_are_smoothed_within_the_slice(batch):
    maps = {"dense": jnp.abs(batch.images), "rec": jnp.abs(batch.images)}
    processed = scoring.post_processed(lambda params, batch: scoring.Scored({}, maps))
    _, found = processed(None, scoring.Batch(*map(jnp.asarray, batch)))
    np.testing.assert_array_equal(found["rec"], postprocess(maps["rec"], batch.brains))
    inside = np.where(batch.brains, maps["dense"], 0)
    expected = np.stack([median_filter(one, 5, mode="mirror") for one in inside])
    np.testing.assert_array_equal(found["dense"], expected)


@pytest.mark.parametrize("name", PATCHES)
def test_a_foreign_patch_is_where_the_gaussians_say_it_is(batch, name):
    rng = np.random.default_rng(1)
    normal = rng.normal(0, 0.1, (64, 16, 16)).astype(np.float32)
    fitted = dense.fit(
        np.float32([0, 1]),
        [(dense.patches(normal, PATCHES[name]), np.linspace(0, 1, 64, dtype=np.float32))],
    )
    brains, changed = np.ones((2, 16, 16), bool), normal[:2].copy()
    changed[1, 4:10, 6:12] = 1.4
    scored = scoring.baseline({name: fitted}, scoring.Batch(changed, brains, np.float32([0.5] * 2)))
    highest = scored.heatmaps[name].max((1, 2))
    assert highest[1] > 3 * highest[0]
    row, column = np.unravel_index(np.argmax(scored.heatmaps[name][1]), (16, 16))
    assert 4 <= row < 10 and 6 <= column < 12
