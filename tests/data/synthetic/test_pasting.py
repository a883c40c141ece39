"""What a foreign object changes in a scan on disk, and what it must not."""

import jax
import nibabel as nib
import numpy as np
import pytest

from cradl_jax.data.scans import bids
from cradl_jax.data.scans.layouts import find_scans
from cradl_jax.data.synthetic import anomalies, pasting
from cradl_jax.errors import InputError
from tests.helpers.scans import brain, write

SHAPE, SPACING = (48, 58, 48), 3.5  # a brain of 1.7 liters
AFFINE = np.diag([-SPACING, SPACING, SPACING, 1.0])  # LAS, as HCP
AFFINE[:3, 3] = 84, -100, -84


@pytest.mark.parametrize(
    ("stored", "scale", "kept"),
    [
        ("<f4", None, np.float32),
        (">f4", None, np.float32),
        ("<f8", None, np.float32),
        ("<i2", None, np.int16),
        (">u2", None, np.uint16),
        ("<i2", (0.25, 20.0), np.float32),
    ],
)
def test_a_scan_changes_only_under_the_mask(tmp_path, stored, scale, kept):
    path = tmp_path / "scan.nii.gz"
    slope, offset = scale or (1, 0)
    data = ((brain(SHAPE) - offset) / slope).astype(stored)  # nibabel writes it as it is
    image = nib.Nifti1Image(data, AFFINE, nib.Nifti1Header(endianness=stored[0]))
    image.set_data_dtype(stored)
    if scale:
        image.header.set_slope_inter(*scale)
    nib.save(image, path)
    pasting.write_pasted(jax.random.key(3), path, tmp_path / "out", "x")

    before, after = nib.load(path), nib.load(bids.scan_path(tmp_path / "out", "x"))
    assert before.get_data_dtype() == np.dtype(stored)
    assert (before.dataobj.slope, before.dataobj.inter) == (slope, offset)
    mask = nib.load(bids.mask_path(tmp_path / "out", "x"))
    assert after.get_data_dtype() == kept
    np.testing.assert_array_equal(after.affine, before.affine)
    np.testing.assert_array_equal(mask.affine, before.affine)
    annotated = np.asarray(mask.dataobj) > 0
    old, new = (np.asarray(x.dataobj).astype(kept) for x in (before, after))
    assert old[~annotated].tobytes() == new[~annotated].tobytes()
    assert annotated.any() and (old[annotated] != 0).all()
    assert (new[annotated] > 0).all() and (new[annotated] != old[annotated]).mean() > 0.95
    (scan,) = find_scans(tmp_path / "out", "bids")
    assert scan.mask is not None


@pytest.mark.parametrize(("dtype", "level"), [(np.int16, -1), (np.int16, 40), (np.float32, -1)])
def test_an_object_lies_above_a_background_other_than_0(tmp_path, dtype, level):
    data, key = np.rint(brain(SHAPE)).astype(dtype), jax.random.key(3)
    for name, background in (("zero", 0), ("other", level)):
        path = write(tmp_path / f"{name}.nii", (data + background).astype(dtype), AFFINE)
        pasting.write_pasted(key, path, tmp_path / name, "x")
    plain, other = (
        nib.load(bids.scan_path(tmp_path / name, "x")).get_fdata() for name in ("zero", "other")
    )
    np.testing.assert_allclose(other, plain + level, atol=1e-4)


def test_the_object_is_the_generators_own_in_ras(tmp_path):
    """Left and right, and the spacing, are those that the generator is told."""
    path = write(tmp_path / "scan.nii", brain(SHAPE), AFFINE)
    pasting.write_pasted(jax.random.key(1), path, tmp_path / "out", "x")
    volume = np.ascontiguousarray(brain(SHAPE)[::-1])
    painted, mask = jax.device_get(
        anomalies.paste_object(jax.random.key(1), volume, volume != 0, (SPACING,) * 3)
    )
    found = nib.load(bids.scan_path(tmp_path / "out", "x")).get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(found[::-1], painted)
    marked = np.asarray(nib.load(bids.mask_path(tmp_path / "out", "x")).dataobj)
    np.testing.assert_array_equal(marked[::-1] > 0, mask)


def test_a_brain_without_room_is_refused(tmp_path):
    tiny = np.pad(brain((8, 8, 8)), 12)  # 20 mm wide
    tiny = write(tmp_path / "tiny.nii", tiny, np.diag([3.0, 3.0, 3.0, 1.0]))
    with pytest.raises(InputError, match=r"tiny\.nii: expected a brain with room"):
        pasting.write_pasted(jax.random.key(0), tiny, tmp_path / "out", "x")
