"""Anomalies on a brain-sized ellipsoid: where they change a volume, how much, how plainly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from cradl_jax.data.slices.store import anomalous
from cradl_jax.data.synthetic import anomalies

FIELD_MM = np.array([232.0, 232.0, 164.0])
SPACING = (3.625, 3.625, 2.0)  # 82 slices of 64x64, as the phantom's model sees them
RADII_MM = np.array([68.0, 84.0, 66.0])  # 1.6 liters


def head(spacing_mm=SPACING, seed=0):
    """An ellipsoid of two noisy tissues: intensities, brain."""
    counts = np.rint(FIELD_MM / spacing_mm).astype(int)
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(counts, spacing_mm, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    brain = ((grid / RADII_MM) ** 2).sum(-1) < 1
    rng = np.random.default_rng(seed)
    tissue = np.where(np.sin(grid / 8).prod(-1) > 0, 400, 600) + rng.normal(0, 15, brain.shape)
    return jnp.asarray(np.where(brain, tissue, 0), jnp.float32), jnp.asarray(brain)


VOLUME, BRAIN = head()


def keys(count):
    return jax.random.split(jax.random.key(0), count)


@pytest.mark.parametrize("insert", [anomalies.paste_object, anomalies.add_lesions])
def test_same_key_same_anomaly_other_key_another(insert):
    first, second = keys(2)
    volume, mask = insert(first, VOLUME, BRAIN, SPACING)
    again, _ = insert(first, VOLUME, BRAIN, SPACING)
    _, other = insert(second, VOLUME, BRAIN, SPACING)
    np.testing.assert_array_equal(volume, again)
    assert (mask != other).any()


def test_objects_change_their_mask_and_nothing_else():
    for key in keys(12):
        volume, mask = jax.device_get(anomalies.paste_object(key, VOLUME, BRAIN, SPACING))
        changed = volume != np.asarray(VOLUME)
        assert mask.any() and not (mask & ~np.asarray(BRAIN)).any()
        assert not (changed & ~mask).any()
        assert changed[mask].mean() > 0.99
        assert (volume[mask] > 0).all()  # a hole in the brain would give them away


def test_a_ball_has_the_brightness_and_texture_that_are_asked_for():
    volume, brain = np.asarray(VOLUME), np.asarray(BRAIN)
    level, deviation = volume[brain].mean(), volume[brain].std()
    masks = []
    for brightness, texture in ((1.5, 0.0), (0.0, 1.0), (-1.5, 0.5)):
        painted, mask = jax.device_get(
            anomalies.paint_ball(keys(1)[0], VOLUME, BRAIN, SPACING, brightness, texture)
        )
        masks.append(mask)
        inside = (painted[mask] - level) / deviation
        np.testing.assert_allclose(painted[~mask], volume[~mask])
        assert inside.mean() == pytest.approx(brightness, abs=0.1 * texture + 1e-3)
        assert inside.std() == pytest.approx(texture, abs=0.02)
        assert (painted[brain] > 0).all()
    assert all((mask == masks[0]).all() for mask in masks)
    volume_mm3 = masks[0].sum() * np.prod(SPACING)
    assert volume_mm3 == pytest.approx(4 / 3 * np.pi * anomalies.BALL_MM**3, rel=0.05)


def test_lesions_are_bright_with_soft_borders():
    for key in keys(12):
        volume, mask = jax.device_get(anomalies.add_lesions(key, VOLUME, BRAIN, SPACING))
        gain = volume - np.asarray(VOLUME)
        assert mask.any() and not (mask & ~np.asarray(BRAIN)).any()
        assert (gain >= 0).all() and (gain[~np.asarray(BRAIN)] == 0).all()
        core = ndimage.binary_erosion(mask, iterations=3)
        assert np.median(volume[core if core.any() else mask]) > np.asarray(VOLUME[BRAIN]).mean()
        border = ndimage.binary_dilation(mask, iterations=2) & ~mask & np.asarray(BRAIN)
        assert 0 < gain[border].mean() < gain[mask].mean()
        far = ~ndimage.binary_dilation(mask, iterations=12)
        assert (gain[far] == 0).mean() > 0.99


@pytest.mark.parametrize("insert", [anomalies.paste_object, anomalies.add_lesions])
def test_sizes_are_in_millimeters(insert):
    """The same distribution of volumes in mm³ on another grid."""

    def liters(spacing_mm):
        volume, brain = head(spacing_mm)
        sizes = [insert(key, volume, brain, spacing_mm)[1].sum() for key in keys(40)]
        return np.prod(spacing_mm) / 1e6 * np.mean(sizes)

    assert liters((4.0, 5.0, 6.0)) == pytest.approx(liters(SPACING), rel=0.3)


@pytest.mark.parametrize(
    "change",
    [
        lambda key, volume: anomalies.paste_object(key, volume, BRAIN, SPACING)[0],
        lambda key, volume: anomalies.add_lesions(key, volume, BRAIN, SPACING)[0],
        lambda key, volume: anomalies.scanner_shift(key, volume, BRAIN, SPACING),
    ],
)
def test_intensities_are_relative_to_the_volume(change):
    key = jax.random.key(3)
    np.testing.assert_allclose(change(key, 8 * VOLUME), 8 * change(key, VOLUME), rtol=1e-3)


def test_objects_are_dark_and_bright():
    """No better than fair by brightness alone, either way."""
    mean = np.asarray(VOLUME[BRAIN]).mean()
    painted = [
        volume[mask].mean()
        for volume, mask in (
            jax.device_get(anomalies.paste_object(key, VOLUME, BRAIN, SPACING)) for key in keys(40)
        )
    ]
    assert 0.25 < np.mean(np.array(painted) > mean) < 0.75


def test_scanner_shift_keeps_the_brain_and_changes_the_picture():
    shifted = jax.device_get(anomalies.scanner_shift(jax.random.key(0), VOLUME, BRAIN, SPACING))
    np.testing.assert_array_equal(shifted > 0, BRAIN)
    inside, before = shifted[np.asarray(BRAIN)], np.asarray(VOLUME[BRAIN])
    assert 0.5 < np.corrcoef(inside, before)[0, 1] < 0.99


@pytest.mark.parametrize(
    ("insert", "slices", "voxels"),
    [
        (anomalies.paste_object, (0.205, 0.2), (0.0065, 0.2)),
        (anomalies.add_lesions, (0.40, 0.2), (0.0150, 0.4)),
    ],
    ids=["synth", "lesion"],
)
def test_prevalences_are_those_of_table_1(insert, slices, voxels):
    """HCP Synth., and between ISLES (36.6 %, 1.14 %) and BraTS (49.0 %, 2.43 %)."""
    masks = np.stack([insert(key, VOLUME, BRAIN, SPACING)[1] for key in keys(80)])
    masks = masks[..., 5:-5].transpose(0, 3, 1, 2)
    found = np.mean([anomalous(subject) for subject in masks])
    assert found == pytest.approx(slices[0], rel=slices[1])
    assert masks.mean() == pytest.approx(voxels[0], rel=voxels[1])
