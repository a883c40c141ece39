"""Corruptions against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import zoom

from cradl_jax import corruptions
from cradl_jax.corruptions import (
    coarse_noise,
    cut_paste,
    cut_paste_scar,
    foreign_patches,
    hidden_blocks,
    pasted,
    pixel_of,
    smooth_noise,
    soft_box,
)

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
    assert not cut_paste(KEYS[0], empty).any() and not cut_paste_scar(KEYS[0], empty).any()


def test_every_pixel_of_the_brain_is_drawn_alike(image):
    brain = image != 0
    pixels = np.flatnonzero(brain)
    shares = np.asarray(jax.vmap(jax.random.uniform)(KEYS))
    rows, columns = np.asarray(jax.vmap(lambda key: pixel_of(key, brain))(KEYS)).T
    np.testing.assert_array_equal(rows * SIZE + columns, pixels[(shares * len(pixels)).astype(int)])


@pytest.mark.parametrize("paste", [cut_paste, cut_paste_scar])
def test_what_is_pasted_is_tissue_from_elsewhere(image, paste, monkeypatch):
    """One shift explains all changed pixels, and none within the box is left out."""
    monkeypatch.setattr(corruptions, "JITTER", 0.0)
    found = np.asarray(jax.vmap(lambda key: paste(key, image))(KEYS[:100]))
    image = np.asarray(image)
    assert not found[:, image == 0].any()
    for one in found:
        changed = one != image
        if not changed.any():
            continue  # a pixel was pasted on itself
        at = np.argwhere(changed)
        shift = at[0] - np.argwhere(image == one[tuple(at[0])])[0]
        moved = np.roll(image, shift, (0, 1))
        np.testing.assert_array_equal(one[changed], moved[changed])
        if paste is cut_paste:  # upright
            box = np.zeros_like(changed)
            (top, left), (bottom, right) = at.min(0), at.max(0)
            box[top : bottom + 1, left : right + 1] = True
            np.testing.assert_array_equal(changed, box & (image != 0) & (moved != 0))
    assert (found != image).any((1, 2)).mean() > 0.9


def test_boxes_have_their_share_of_the_brain_and_their_aspect():
    """In a slice that is brain all over, where those that leave it are put aside."""
    side = 128
    image = jnp.asarray(np.random.default_rng(0).uniform(0.2, 1, (side, side)), jnp.float32)
    changed = np.asarray(jax.vmap(lambda key: cut_paste(key, image) != image)(KEYS))
    frame = np.ones((side, side), bool)
    frame[1:-1, 1:-1] = False
    whole = changed[~(changed & frame).any((1, 2))]
    heights, widths = whole.any(2).sum(1), whole.any(1).sum(1)
    np.testing.assert_array_equal(whole.sum((1, 2)), heights * widths)
    assert len(whole) > 50
    low, high = (share * side**2 for share in corruptions.AREA)
    assert (whole.sum((1, 2)) > 0.85 * low).all() and (whole.sum((1, 2)) < 1.15 * high).all()
    aspects = heights / widths
    assert aspects.max() < 1.15 * corruptions.ASPECT and aspects.min() > 0.85 / corruptions.ASPECT
    assert (aspects < 0.7).any() and (aspects > 1.4).any()


def test_scars_are_long_thin_and_turned():
    side = 256
    image = jnp.asarray(np.random.default_rng(0).uniform(0.2, 1, (side, side)), jnp.float32)
    lengths, widths, tilts = [], [], []
    for key in KEYS[:60]:
        at = np.argwhere(np.asarray(cut_paste_scar(key, image) != image))
        if at.min() == 0 or at.max() == side - 1:
            continue  # it may leave the image
        variances, axes = np.linalg.eigh(np.cov(at.T))
        widths.append(np.sqrt(12 * variances[0]))  # a uniform density's, of that width
        lengths.append(np.sqrt(12 * variances[1]))
        tilts.append(np.arctan(axes[1, 1] / axes[0, 1]))
    assert len(tilts) > 30
    for found, shares in ((widths, corruptions.WIDTH), (lengths, corruptions.LENGTH)):
        low, high = (share * side for share in shares)
        assert low - 1 < min(found) < 1.5 * low and 0.8 * high < max(found) < high + 1
    assert np.abs(tilts).max() < np.pi / 4 + 0.05 and min(tilts) < -0.4 and max(tilts) > 0.4


def test_pasted_tissue_has_a_contrast_and_brightness_of_its_own(image, monkeypatch):
    fits = []
    for key in KEYS[:60]:
        found = pasted(key, image, 9.0, 9.0, 0.0)
        with monkeypatch.context() as without:
            without.setattr(corruptions, "JITTER", 0.0)
            plain = pasted(key, image, 9.0, 9.0, 0.0)
        changed = np.asarray((found != image) & (plain != image))
        pair = np.asarray(plain)[changed], np.asarray(found)[changed]
        fits.append(np.polyfit(*pair, 1))
        np.testing.assert_allclose(pair[1], np.polyval(fits[-1], pair[0]), atol=1e-5)
    contrast, brightness = np.transpose(fits)
    assert np.ptp(contrast) > 0.15 and np.abs(contrast - 1).max() <= 0.1 + 1e-4
    assert np.ptp(brightness) > 0.22 and np.abs(brightness).max() <= 0.15 + 1e-4
    assert jnp.abs(pasted(KEYS[0], 1.5 * image, 9.0, 9.0, 0.0)).max() <= 1.5


@pytest.mark.parametrize(("size", "block"), [(8, 1), (20, 2), (64, 8), (112, 8), (128, 16)])
def test_three_of_four_blocks_are_hidden_and_any_may_be(size, block):
    hidden = np.asarray(jax.vmap(lambda key: hidden_blocks(key, size))(KEYS))
    blocks = hidden.reshape(len(KEYS), size // block, block, size // block, block)
    assert (blocks == blocks[:, :, :1, :, :1]).all()
    np.testing.assert_array_equal(hidden.mean((1, 2)), 0.75)
    shares = blocks[:, :, 0, :, 0].mean(0)
    assert shares.min() > 0.6 and shares.max() < 0.9  # seven deviations from 0.75
