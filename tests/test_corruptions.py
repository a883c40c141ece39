"""Corruptions against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import zoom

from cradl_jax import corruptions
from cradl_jax.corruptions import coarse_noise, foreign_patches, smooth_noise, soft_box

SIZE = 32
KEYS = jax.random.split(jax.random.key(0), 400)


@pytest.fixture(scope="module")
def image():
    """A disc of tissue on a background of 0."""
    rows, columns = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
    tissue = np.random.default_rng(0).uniform(0.2, 1, (SIZE, SIZE))
    return jnp.asarray(np.where(np.hypot(rows, columns) < 11, tissue, 0), jnp.float32)


def test_coarse_noise_is_zero_outside_the_brain_and_has_its_deviation_inside(image):
    noise = np.asarray(jax.vmap(lambda key: coarse_noise(key, image, 0.6) - image)(KEYS))
    brain = np.asarray(image != 0)
    assert not noise[:, ~brain].any()
    # a point between four numbers of the grid has the sum of their squared weights as variance
    weights = corruptions.interpolation(SIZE, corruptions.NOISE_GRID)
    expected = 0.6 * np.sqrt(((weights**2).sum(1).mean()) ** 2)
    np.testing.assert_allclose(noise[:, brain].std(), expected, rtol=0.03)
    np.testing.assert_allclose(noise[:, brain].mean(), 0, atol=0.02)
    at_points = np.abs(corruptions.interpolation(16, 16) - np.eye(16)).max()
    assert at_points == 0  # as large as the grid, noise is what was drawn


def test_smooth_noise_is_the_bilinear_picture_of_its_grid_rolled():
    draw, _ = jax.random.split(KEYS[0])
    found = np.asarray(smooth_noise(KEYS[0], (SIZE, SIZE), 16))
    expected = zoom(np.asarray(jax.random.normal(draw, (16, 16))), 2, order=1)
    distances = [
        np.abs(np.roll(expected, (down, right), (0, 1)) - found).max()
        for down in range(SIZE)
        for right in range(SIZE)
    ]
    assert min(distances) < 1e-4 and np.median(distances) > 1
    rolls = {int(np.argmax(smooth_noise(key, (SIZE, SIZE), 16))) for key in KEYS[:20]}
    assert len(rolls) > 15


def test_degree_0_changes_nothing_and_the_background_stays_0(image):
    foreign = jnp.ones_like(image)
    for degree in (0.0, 0.4, 1.0):
        found = jax.vmap(lambda key, d=degree: foreign_patches(key, image, foreign, d))(KEYS)
        assert not np.asarray(found)[:, np.asarray(image) == 0].any()
        np.testing.assert_array_equal(
            np.asarray((found != image).any((1, 2))), np.full(len(KEYS), degree > 0)
        )


def test_inside_a_box_two_slices_are_combined_convexly(image, monkeypatch):
    monkeypatch.setattr(corruptions, "BIAS", 0.0)
    monkeypatch.setattr(corruptions, "BOXES", 1)
    foreign, brain, blended = image[::-1] + 1, np.asarray(image != 0), 0
    for key in KEYS[:40]:
        found = np.asarray(foreign_patches(key, image, foreign, 0.3))
        box = soft_box(jax.random.split(jax.random.split(key, 2)[1], 3)[0], image != 0)
        share = np.where(brain, 0.3 * np.asarray(box), 0)
        if np.abs(found - image).max() > 1e-5:  # else the box has a bias alone, which is 0
            blended += 1
            expected = (1 - share) * image + share * foreign
            np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 20 <= blended <= 35  # two kinds of three


def test_a_bias_is_smooth_and_of_either_sign(image):
    fields = np.asarray(jax.vmap(lambda key: smooth_noise(key, (SIZE, SIZE), 4))(KEYS[:50]))
    steps = np.sort(np.abs(np.diff(fields, axis=1)).max(2), axis=1)
    # from one of 4 numbers to the next it is linear over 31 / 3 pixels; one seam is rolled in
    assert steps[:, -2].max() < np.ptp(fields) / (31 / 3)
    assert (fields.mean((1, 2)) > 0).any() and (fields.mean((1, 2)) < 0).any()


def test_boxes_have_their_sides_and_lie_around_the_brain(image):
    brain = np.asarray(image != 0)
    boxes = np.asarray(jax.vmap(lambda key: soft_box(key, image != 0))(KEYS)) > 0.5
    sides = np.stack([boxes.any(2).sum(1), boxes.any(1).sum(1)])
    largest = corruptions.SIDES[1] * SIZE
    assert sides.min() >= 1 and sides.max() <= largest + 1
    assert sides.max() > 0.9 * largest and (boxes & brain).any((1, 2)).all()
    edges = np.asarray(soft_box(KEYS[0], image != 0))
    assert edges.max() > 0.6 and edges.min() < 1e-3
    assert ((edges > 0.05) & (edges < 0.95)).any()


def test_slices_without_brain_stay_empty():
    empty = jnp.zeros((SIZE, SIZE))
    assert not foreign_patches(KEYS[0], empty, empty + 1, 1.0).any()
    assert not coarse_noise(KEYS[0], empty, 0.6).any()
