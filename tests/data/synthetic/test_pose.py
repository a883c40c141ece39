import numpy as np
import pytest

from cradl_jax.data.synthetic.pose import AXIS, moved

SPACING = (1.0, 2.0, 1.5)


def ball(center_mm=(0, 0, 0), radius=9):
    shape = np.array([41, 25, 31])
    at = (np.indices(shape).reshape(3, -1).T - (shape - 1) / 2) * SPACING
    near = np.linalg.norm(at - center_mm, axis=1) < radius
    return (near * 700.0).reshape(shape).astype(np.float32)


def center_of(volume):
    at = (np.argwhere(volume) - (np.array(volume.shape) - 1) / 2) * SPACING
    return at.mean(0)


def test_no_move_changes_nothing():
    volume = ball((2, -3, 1)) + np.arange(31, dtype=np.float32) * (ball((2, -3, 1)) > 0)
    np.testing.assert_array_equal(moved(volume, SPACING, 0, 0), volume)


@pytest.mark.parametrize("kind", [np.float32, bool])
def test_a_shift_is_in_millimeters_along_the_axis(kind):
    volume = ball().astype(kind)
    found = moved(volume, SPACING, 0, 6)
    assert found.dtype == kind
    np.testing.assert_allclose(center_of(found), 6 * AXIS, atol=1)  # to the nearest voxel
    assert np.count_nonzero(found) == pytest.approx(np.count_nonzero(volume), rel=0.05)


def test_a_turn_is_rigid_and_by_rodrigues_formula():
    center = np.array([7.0, 0, -4])
    found = moved(ball(center, radius=6), SPACING, 20, 0)
    angle = np.radians(20)
    expected = (
        center * np.cos(angle)
        + np.cross(AXIS, center) * np.sin(angle)
        + AXIS * (AXIS @ center) * (1 - np.cos(angle))
    )
    np.testing.assert_allclose(center_of(found), expected, atol=0.35)


def test_the_background_stays_zero_and_the_brain_keeps_its_values():
    found = moved(ball(), SPACING, 10, 3)
    assert (found == 0).any() and 0 < found[found != 0].min() <= found.max() <= 700
