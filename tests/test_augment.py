import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cradl_jax import augment


def image(seed=0, shape=(24, 32)):
    return jax.random.uniform(jax.random.key(seed), shape, minval=-1.5, maxval=1.5)


def many(transform, x, count=2000):
    keys = jax.random.split(jax.random.key(1), count)
    return jax.jit(jax.vmap(transform, (0, None)))(keys, x)


@settings(deadline=None, max_examples=25)
@given(st.floats(-0.5, 0.5), st.floats(0.8, 1.3), st.tuples(st.floats(-9, 9), st.floats(-9, 9)))
def test_affine_equals_scipy(angle, scale, shift):
    x = image()
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    center = (np.array(x.shape) - 1) / 2
    expected = ndimage.affine_transform(
        np.asarray(x, np.float64),
        matrix,
        offset=center + shift - matrix @ center,
        order=1,
        mode="nearest",
    )
    found = augment.affine(x, jnp.asarray(matrix), jnp.asarray(shift))
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_mirror_swaps_left_and_right_half_of_the_time():
    x = image()
    views = np.asarray(many(augment.crop_scale_mirror_rotate(0.0, (1.0, 1.0), 0.0), x))
    mirrored = np.all(np.abs(views - x[:, ::-1]) < 1e-5, axis=(1, 2))
    kept = np.all(np.abs(views - x) < 1e-5, axis=(1, 2))
    assert np.all(mirrored | kept)
    assert 0.45 < mirrored.mean() < 0.55


def test_shift_and_rotation_are_mirrored_too():
    x, keys = image(shape=(33, 33)), jax.random.split(jax.random.key(3), 20)
    straight, mirrored = (
        jax.vmap(augment.crop_scale_mirror_rotate(0.2, mirroring=p), (0, None))(keys, side)
        for p, side in ((0.0, x[:, ::-1]), (1.0, x))
    )
    np.testing.assert_allclose(mirrored, straight, atol=1e-4)


def test_a_batch_of_batches_is_resampled_alike():
    x, matrix = jnp.stack([image(0), image(1)]), jnp.array([[0.9, 0.1], [-0.1, 1.1]])
    shifts = jnp.array([[1.0, -2.0], [0.5, 3.0], [-4.0, 0.0]])
    each = jax.vmap(jax.vmap(augment.affine, (0, None, None)), (None, None, 0))(x, matrix, shifts)
    for shift, images in zip(shifts, each, strict=True):
        for one, found in zip(x, images, strict=True):
            np.testing.assert_allclose(found, augment.affine(one, matrix, shift), atol=1e-5)


def test_brightness_multiplies_by_its_range():
    factors = many(augment.brightness(0.95, 1.1), jnp.ones((1, 1))).ravel()
    assert 0.95 <= factors.min() < 0.96 and 1.09 < factors.max() <= 1.1


def test_noise_has_a_uniform_standard_deviation():
    deviations = many(augment.gaussian_noise(0.05), jnp.zeros((40, 40)), 500).std((1, 2))
    assert deviations.max() < 0.055
    np.testing.assert_allclose(deviations.mean(), 0.025, rtol=0.1)


def test_half_of_the_scales_shrink():
    # One bright disc: its area after a pure scaling tells the magnification.
    grid = jnp.hypot(*jnp.meshgrid(*[jnp.arange(65) - 32.0] * 2))
    disc = jnp.clip(16.5 - grid, 0, 1)
    views = many(augment.crop_scale_mirror_rotate(0.0, (0.9, 1.2), 0.0), disc, 1000)
    scales = jnp.sqrt(views.sum((1, 2)) / disc.sum())
    assert 0.89 < scales.min() < 0.91 and 1.18 < scales.max() < 1.21
    assert 0.45 < (scales < 1).mean() < 0.55


@pytest.mark.parametrize("shift", [0.0, 0.17])
def test_views_stay_in_range_and_differ(shift):
    view = augment.views(mirroring=0.5, shift=shift, scale=(0.9, 1.2), rotation=0.1, noise=0.05)
    views = many(view, image(), 50)
    assert views.shape == (50, 24, 32)
    assert jnp.abs(views).max() <= 1.5
    assert len(np.unique(np.asarray(views).reshape(50, -1), axis=0)) == 50


def test_compose_gives_each_transform_its_own_key():
    seen = []

    def spy(key, x):
        seen.append(tuple(np.asarray(jax.random.key_data(key))))
        return x + 1

    assert augment.compose(spy, spy)(jax.random.key(0), jnp.zeros((2, 2)))[0, 0] == 2
    assert len(set(seen)) == 2
