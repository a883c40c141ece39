from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LinearRegression

from cradl_jax.data.slices.preprocess import (
    LEAST_BRAIN,
    brain_box,
    detrended,
    moments,
    most_slices,
    normalize,
    normalized_slices,
    overlap,
    slice_geometry,
    slice_layers,
    slice_volume,
)
from cradl_jax.errors import InputError
from tests.helpers.scans import brain


def test_normalize_is_the_clipped_z_score_of_the_brain():
    data = brain((30, 30, 30))
    data[15, 15, 15], data[15, 15, 16] = 1e4, -300
    inside = data != 0
    expected = np.zeros_like(data)
    expected[inside] = np.clip(stats.zscore(data[inside].astype(float)), -1.5, 1.5)
    score = normalize(data, inside, *moments(data, inside))
    assert score.dtype == np.float32
    np.testing.assert_allclose(score, expected, atol=1e-5)
    assert (score[~inside] == 0).all()
    assert score.max() == 1.5 and score.min() >= -1.5
    assert normalize(data, inside, 100, 20, clip=3).max() == 3


def test_moments_of_large_intensities_keep_their_accuracy():
    data = np.random.default_rng(0).normal(3e4, 2, (100, 100, 100)).astype(np.float32)
    mean, std = moments(data, data > 3e4)
    chosen = data[data > 3e4].astype(np.float64)
    np.testing.assert_allclose((mean, std), (chosen.mean(), chosen.std()), rtol=1e-5)


def test_the_trend_is_that_of_a_linear_regression():
    data = brain((12, 16, 10)) * np.linspace(0.8, 1.2, 16, dtype=np.float32)[:, None]
    inside, places = data != 0, np.argwhere(data != 0)
    score = normalize(data, inside, *moments(data, inside))
    trend = LinearRegression().fit(places, score[inside]).predict(places)
    expected = score.copy()
    expected[inside] -= trend - trend.mean()
    before = score.copy()
    found = detrended(score, inside)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(score, before)


def test_a_detrended_scan_is_normalized_once_more():
    data = brain((12, 16, 10)) * np.linspace(0.8, 1.2, 16, dtype=np.float32)[:, None]
    data[data > 0] += 1e3 * (np.random.default_rng(0).uniform(size=data[data > 0].shape) > 0.9)
    inside, places = data != 0, np.argwhere(data != 0)
    score = np.clip(stats.zscore(data[inside].astype(float)), -1.5, 1.5)
    expected = np.zeros_like(data)
    trend = LinearRegression().fit(places, score).predict(places)
    expected[inside] = np.clip(stats.zscore(score - trend), -1.5, 1.5)
    how = {"size": 16, "field_mm": 16}
    found, mean, std = normalized_slices(data, None, (1, 1, 1), detrend=True, **how)
    np.testing.assert_allclose(
        found.images, slice_volume(expected, inside, None, (1, 1, 1), **how).images, atol=1e-5
    )
    assert (mean, std) == moments(data, inside)  # of the scan as it is


def test_a_brain_that_is_nothing_but_a_linear_trend_keeps_it():
    data = np.ones((6, 8, 3), np.float32) * np.float32([100, 200, 300])
    how = {"size": 16, "field_mm": 16}
    kept, *_ = normalized_slices(data, None, (1, 1, 1), detrend=True, **how)
    expected, *_ = normalized_slices(data, None, (1, 1, 1), **how)
    np.testing.assert_array_equal(kept.images, expected.images)


@settings(max_examples=40, deadline=None)
@given(slope=st.tuples(*[st.floats(-0.01, 0.01)] * 3), seed=st.integers(0, 99))
def test_a_linear_trend_is_not_seen(slope, seed):
    """Where no z-score is clipped: half of the voxels are darker, half brighter by as much."""
    inside = brain((12, 16, 10)) != 0
    darker = np.random.default_rng(seed).uniform(size=inside.shape) < 0.5
    data = np.where(inside, np.where(darker, 9, 11), 0).astype(np.float32)
    tilt = np.einsum("i,ixyz->xyz", slope, np.indices(data.shape)).astype(np.float32)
    how = {"size": 16, "field_mm": 16, "detrend": True}
    expected, *_ = normalized_slices(data, None, (1, 1, 1), **how)
    found, *_ = normalized_slices(np.where(inside, data + tilt, 0), None, (1, 1, 1), **how)
    np.testing.assert_allclose(found.images, expected.images, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 9), (1, 6, 5), (4, 4, 1)])
def test_a_brain_without_depth_has_no_trend_along_it(shape):
    score = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    flat = detrended(score, np.ones(shape, bool))
    assert np.isfinite(flat).all() and flat.std() <= score.std()
    np.testing.assert_allclose(flat.mean(), score.mean(), rtol=1e-5)


@given(
    n_in=st.integers(1, 40),
    n_out=st.integers(1, 40),
    spacing_in=st.floats(0.3, 4),
    spacing_out=st.floats(0.3, 4),
    shift=st.floats(-20, 20),
)
def test_overlap_integrates_each_cell_exactly(n_in, n_out, spacing_in, spacing_out, shift):
    edges_in = (np.arange(n_in + 1) - n_in / 2) * spacing_in
    edges_out = (np.arange(n_out + 1) - n_out / 2) * spacing_out + shift
    weights = overlap(edges_in, edges_out)
    samples = 400
    inner = (np.arange(n_out * samples) + 0.5) / samples * spacing_out + shift
    cell = np.floor((inner - n_out * spacing_out / 2) / spacing_in + n_in / 2).astype(int)
    expected = np.stack([(cell == i).reshape(n_out, samples).mean(1) for i in range(n_in)], axis=1)
    np.testing.assert_allclose(weights, expected, atol=1.1 / samples)


@settings(max_examples=25, deadline=None)
@given(side=st.integers(3, 40), size=st.integers(2, 30), seed=st.integers(0, 99))
def test_a_pixel_is_the_exact_mean_over_its_area(side, size, seed):
    data = np.random.default_rng(seed).normal(size=(side, side, 3)).astype(np.float32)
    replicate = np.ones(data.shape, bool)
    slices = slice_volume(data, replicate, None, (1, 1, 1), size=size, field_mm=side)
    assert slices.brains.all()
    for z, image in enumerate(slices.images):
        shown = data[::-1, ::-1, z].T.astype(np.float64)
        fine = shown.repeat(size, axis=0).repeat(size, axis=1)  # both grids divide this one
        expected = fine.reshape(size, side, size, side).mean((1, 3))
        np.testing.assert_allclose(image, expected, atol=1e-5)


def test_anisotropic_pixels_keep_their_aspect_ratio():
    data = np.random.default_rng(0).uniform(1, 2, (12, 40, 5)).astype(np.float32)
    slices = slice_volume(data, data != 0, None, (2.0, 1.0, 3.0), size=20, field_mm=40, offset=1)
    assert slices.images.shape == (3, 20, 20)
    for image, in_brain, z in zip(slices.images, slices.brains, slices.z_index, strict=True):
        wide = np.pad(np.repeat(data[::-1, ::-1, z].T, 2, axis=1), ((0, 0), (8, 8)))
        np.testing.assert_allclose(
            image, wide.reshape(20, 2, 20, 2).mean((1, 3)), rtol=1e-6, err_msg="block means"
        )
        assert (in_brain == (np.abs(np.arange(20) - 9.5) < 6)).all()


def test_rows_start_in_front_and_columns_at_the_patients_right():
    right, anterior, superior = (np.zeros((16, 16, 4), np.float32) for _ in range(3))
    right[-2:], anterior[:, -2:], superior[:, :, -1] = 1, 1, 1
    replicate = np.ones((16, 16, 4), bool)

    def show(data):
        return slice_volume(data, replicate, None, (1, 1, 1), size=8, field_mm=16).images

    assert (show(right)[:, :, 0] == 1).all() and show(right).sum() == 4 * 8
    assert (show(anterior)[:, 0, :] == 1).all() and show(anterior).sum() == 4 * 8
    assert (show(superior)[-1] == 1).all() and show(superior).sum() == 8 * 8


def test_swapping_left_and_right_mirrors_the_last_axis():
    data = brain((21, 26, 12))
    slices, mirrored = (
        slice_volume(x, x != 0, x > 100, (1.5, 1, 1), size=13, field_mm=30)
        for x in (data, data[::-1])
    )
    np.testing.assert_allclose(mirrored.images, slices.images[..., ::-1], rtol=1e-5)
    np.testing.assert_array_equal(mirrored.brains, slices.brains[..., ::-1])


def test_background_is_zero_and_the_edge_is_the_mean_of_the_brain_in_it():
    data = np.zeros((8, 8, 1), np.float32)
    data[2:6, 2:6] = 3
    data[[1, 6], 2:6] = 9  # half of a pixel: belongs to the brain
    data[1, 2] = 0  # what is left there, a quarter, does not
    slices = slice_volume(data, data != 0, None, (1, 1, 1), size=4, field_mm=8)
    expected = np.zeros((4, 4))
    expected[1:3, 1:3], expected[1:3, 0], expected[1, 3] = 3, 9, 9
    np.testing.assert_array_equal(slices.images[0], expected)
    np.testing.assert_array_equal(slices.brains[0], expected > 0)
    assert not slices.masks.any()


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(12, 30), st.integers(12, 30), st.integers(16, 20)),
    spacing=st.tuples(*[st.floats(0.5, 3)] * 3),
    size=st.integers(4, 24),
    slice_mm=st.none() | st.floats(0.5, 2),
)
def test_contract_of_a_slice(shape, spacing, size, slice_mm):
    data = brain(shape)
    inside = data != 0
    score = normalize(data, inside, *moments(data, inside))
    how = {"size": size, "field_mm": 40, "offset": 1, "slice_spacing_mm": slice_mm}
    geometry = slice_geometry(inside, spacing, **how)
    slices = slice_volume(score, inside, score > 1, spacing, **how)
    n = geometry.n_slices
    for array, dtype in zip(
        (slices.images, slices.brains, slices.masks), (np.float32, bool, bool), strict=True
    ):
        assert array.shape == (n, size, size) and array.dtype == dtype
    assert (slices.images[~slices.brains] == 0).all()
    assert np.abs(slices.images).max() <= 1.5
    assert slices.position.shape == (n,) and slices.position.dtype == np.float32
    assert (np.diff(slices.position) >= 0).all()
    assert slices.position.min() >= 0 and slices.position.max() <= 1


def test_masks_are_kept_where_they_cover_half_of_a_pixel():
    mask = np.zeros((8, 8, 1), bool)
    mask[4:6, 4:6] = mask[0, 0:2] = mask[7, 7] = True
    data = np.ones((8, 8, 1), np.float32)
    shown = slice_volume(data, data > 0, mask, (1, 1, 1), size=4, field_mm=8).masks[0]
    expected = np.zeros((4, 4), bool)
    expected[1, 1] = expected[3, 3] = True
    np.testing.assert_array_equal(shown, expected)


def test_the_stack_is_averaged_to_the_slice_spacing():
    data = np.random.default_rng(0).uniform(1, 2, (6, 6, 12)).astype(np.float32)
    how = {"size": 6, "field_mm": 6, "offset": 1}
    thick = slice_volume(data, data > 0, None, (1, 1, 0.7), slice_spacing_mm=1.4, **how)
    pairs = (data[..., ::2] + data[..., 1::2]) / 2
    same = slice_volume(pairs, pairs > 0, None, (1, 1, 1.4), **how)
    np.testing.assert_allclose(thick.images, same.images, rtol=1e-5)
    np.testing.assert_array_equal(thick.z_index, [1, 2, 3, 4])


def test_the_geometry_tells_where_a_pixel_lies():
    shape, spacing = (20, 30, 10), (1.5, 1.2, 0.7)
    how = {"size": 16, "field_mm": 36, "offset": 1, "slice_spacing_mm": 1.4}
    everywhere = np.ones(shape, bool)
    geometry = slice_geometry(everywhere, spacing, **how)
    grid = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)),
        indexing="ij",
    )
    pixels = ((geometry.size - 1) / 2 - np.arange(geometry.size)) * geometry.pixel_mm
    heights = (slice_layers(geometry) - 4.5) * 0.7
    np.testing.assert_allclose(heights, [-1.4, 0, 1.4], atol=1e-12)
    expected = np.meshgrid(heights, pixels, pixels, indexing="ij")
    for millimeters, (axis, where) in zip(grid, ((2, 0.8), (1, 0.3), (0, 0.3)), strict=True):
        slices = slice_volume(millimeters.astype(np.float32), everywhere, None, spacing, **how)
        interior = slices.brains & (np.abs(expected[2]) < 13.5) & (np.abs(expected[1]) < 16.5)
        assert interior.sum() > 100
        error = np.abs(slices.images - expected[axis])[interior].max()
        assert error < where, "a fraction of a voxel, for a box has no better accuracy"


EMPTY = st.tuples(st.integers(0, 30), st.integers(0, 30))


@settings(max_examples=40, deadline=None)
@given(
    padding=st.tuples(EMPTY, EMPTY, EMPTY),
    spacing=st.tuples(*[st.floats(0.5, 3)] * 3),
    size=st.integers(4, 24),
    field_mm=st.floats(10, 80),
    offset=st.integers(0, 3),
    slice_mm=st.none() | st.floats(0.5, 2),
    detrend=st.booleans(),
)
def test_empty_space_on_any_side_changes_no_bit(
    padding, spacing, size, field_mm, offset, slice_mm, detrend
):
    """The brain cut out of its field of view, and within a larger one."""
    how = {"size": size, "field_mm": field_mm, "offset": offset, "slice_spacing_mm": slice_mm}
    how["detrend"] = detrend
    data = brain((16, 20, 14))
    assume(8 * spacing[2] > (2 * offset + 1) * (slice_mm or spacing[2]))
    filled = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(data))
    tight, wide = data[filled], np.pad(data, padding)
    expected, *moments_tight = normalized_slices(tight, tight > 100, spacing, **how)
    found, *moments_wide = normalized_slices(wide, wide > 100, spacing, **how)
    assert moments_wide == moments_tight
    for name in ("images", "brains", "masks", "counted", "z_index", "position"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    place = found.geometry
    assert replace(place, first=expected.geometry.first, shape=tight.shape) == expected.geometry
    added = [before + one.start for (before, _), one in zip(padding, filled, strict=True)]
    np.testing.assert_array_equal(np.subtract(place.first, expected.geometry.first), added)


def test_an_annotation_beyond_the_brain_stays_where_it_is():
    data, mask = np.zeros((12, 16, 6), np.float32), np.zeros((12, 16, 6), bool)
    data[4:8, 4:12], mask[2:4, 6:8] = 1, True
    for x, y, z in ((0, 0, 0), (7, 3, 2)):
        wide = [np.pad(one, ((x, 0), (y, 1), (0, z))) for one in (data, mask)]
        slices = slice_volume(wide[0], wide[0] > 0, wide[1], (1, 1, 1), size=8, field_mm=8)
        assert len(slices.masks) == 6
        shown = np.zeros((8, 8), bool)
        shown[4:6, 6:8] = True  # rows from the front, columns from the right
        np.testing.assert_array_equal(slices.masks, np.broadcast_to(shown, (6, 8, 8)))


def test_specks_neither_move_the_brain_nor_add_slices():
    inside = np.zeros((90, 40, 25), bool)
    inside[50:70, 10:30, 8:20] = True
    box = (slice(50, 70), slice(10, 30), slice(8, 20))
    assert brain_box(inside) == box
    inside[0, 20, 2] = inside[3, 35:38, 22] = True
    assert brain_box(inside) == box
    geometry = slice_geometry(inside, (2, 2, 2), size=30, field_mm=60)
    assert (geometry.first, geometry.n_slices) == ((50, 10, 8), 12)


def test_a_slice_counts_from_a_fiftieth_of_the_largest_on():
    data = np.zeros((20, 20, 12), np.float32)
    data[:, :, 2:10] = 1
    data[:, :, 4] = data[:, :, 6] = data[:, :, 2] = 0
    enough = int(LEAST_BRAIN * 400)
    data[:enough, 0, 2] = data[:enough, 1, 4] = data[: enough - 1, 1, 6] = 1
    how = {"size": 20, "field_mm": 20}
    slices = slice_volume(data, data > 0, None, (1, 1, 1), **how)
    assert slices.counted.tolist() == [True] * 4 + [False] + [True] * 3
    whole = slice_volume(data, data > 0, None, (1, 1, 1), span="volume", offset=1, **how)
    assert whole.counted.all() and len(whole.counted) == 10
    np.testing.assert_array_equal(whole.z_index, np.arange(1, 11))
    np.testing.assert_array_equal(whole.images[1:9], slices.images)
    np.testing.assert_array_equal(whole.position[1:9], slices.position)


def ellipsoid(shape, spacing, middle):
    """A brain that is a function of its place in mm, sampled around `middle`."""
    x, y, z = np.meshgrid(
        *(
            (np.arange(n) - (n - 1) / 2) * step - m
            for n, step, m in zip(shape, spacing, middle, strict=True)
        ),
        indexing="ij",
    )
    inside = (x / 20) ** 2 + (y / 24) ** 2 + (z / 20) ** 2 < 1
    return np.where(inside, 100 + 2 * x - y + 30 * np.cos(z / 5), 0).astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(
    plane=st.tuples(st.integers(110, 130), st.integers(110, 130)),
    voxel=st.tuples(*[st.floats(0.8, 1.3)] * 2),
    away=st.tuples(*[st.floats(-20, 20)] * 2),
)
def test_the_same_brain_on_another_grid_gives_nearly_the_same_slices(plane, voxel, away):
    how = {"size": 24, "field_mm": 60}
    narrow = ellipsoid((60, 60, 10), (1, 1, 4), (0, 0, 0))
    expected, *_ = normalized_slices(narrow, None, (1, 1, 4), **how)
    spacing = (*voxel, 4)
    wide = ellipsoid((*plane, 10), spacing, (*away, 0))
    found, *_ = normalized_slices(wide, None, spacing, **how)
    both = found.brains & expected.brains
    assert both.sum() > 0.92 * max(found.brains.sum(), expected.brains.sum())
    difference = np.abs(found.images - expected.images)[both]
    assert difference.mean() < 0.08 and difference.max() < 0.2


def test_slice_counts_of_the_paper():
    for depth, n_slices in ((165, 145), (155, 135)):  # HCP and BraTS, Table 1
        assert most_slices(depth, 1.0, offset=10) == n_slices
    assert most_slices(260, 0.7, offset=10, slice_spacing_mm=1.0) == 182 - 20


def test_position_is_the_height_within_the_brain():
    data = np.zeros((8, 8, 12), np.float32)
    data[3:5, 3:5, 3:8] = 1
    how = {"size": 4, "field_mm": 8}
    slices = slice_volume(data, data > 0, None, (1, 1, 2), **how, offset=1, span="volume")
    np.testing.assert_allclose(slices.position, [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1])
    inner = slice_volume(data, data > 0, None, (1, 1, 2), **how, offset=1)
    np.testing.assert_allclose(inner.position, [0.25, 0.5, 0.75])


def test_too_few_slices_are_refused():
    with pytest.raises(InputError, match=r"more than 20 axial slices.*found 20"):
        slice_geometry(np.ones((64, 64, 20), bool), (1, 1, 1), size=8, field_mm=64, offset=10)
