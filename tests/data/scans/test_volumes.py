import gzip
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cradl_jax.data.scans.volumes import read_mask, read_origin, read_volume
from cradl_jax.errors import InputError
from tests.helpers.scans import brain, head, write

AXES = [
    codes
    for order in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*order)
]
AFFINE = np.array([[1.0, 0, 0, -9], [0, 2, 0, 5], [0, 0, 3, 7], [0, 0, 0, 1]])
REAL = Path(__file__).parents[4] / "shared" / "data"


def reoriented(data, affine, codes):
    """The same scan stored with other axes, by nibabel."""
    image = nib.Nifti1Image(data, affine)
    start = nib.io_orientation(affine)
    return image.as_reoriented(
        nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(codes))
    )


@pytest.mark.parametrize("axis", "xyz")
@pytest.mark.parametrize("change", [-2e-3, -1e-5, 0, 1e-5, 2e-3])
def test_a_mask_at_45_degrees_may_be_stored_along_any_axes(tmp_path, axis, change):
    """The image's axes are chosen by a rounding; the mask's must follow them."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler(axis, 45, degrees=True).as_matrix()
    data, affine = brain((9, 12, 8)), turn @ np.diag([2.0, 2.0, 2.0, 1.0])
    volume = read_volume(write(tmp_path / "scan.nii", data, affine))
    marked, other = (data > 100).astype(np.uint8), affine + change * (affine != 0)
    other[3] = 0, 0, 0, 1
    for codes in AXES[::5]:
        turned = nib.orientations.axcodes2ornt(codes)
        mask = nib.Nifti1Image(marked, other).as_reoriented(turned)
        nib.save(mask, tmp_path / "mask.nii")
        np.testing.assert_array_equal(
            read_mask(tmp_path / "mask.nii", volume.origin), volume.data > 100
        )


def test_a_mask_at_45_degrees_lies_as_its_image_whatever_the_rounding(tmp_path):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", 45, degrees=True).as_matrix()
    data = brain((9, 12, 8))
    for change in (-1e-6, 1e-6):
        image = write(tmp_path / "scan.nii", data, turn @ AFFINE)
        other = turn @ AFFINE
        other[0, 0] += change
        mask = write(tmp_path / "mask.nii", (data > 100).astype(np.uint8), other)
        volume = read_volume(image)
        np.testing.assert_array_equal(read_mask(mask, volume.origin), volume.data > 100)


def test_every_orientation_gives_the_same_volume(tmp_path):
    data = brain((7, 9, 8))
    assert len(set(AXES)) == 48
    for codes in AXES:
        path = tmp_path / "scan.nii"
        nib.save(reoriented(data, AFFINE, codes), path)
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.data, data)
        np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
        np.testing.assert_allclose(volume.spacing_mm, (1, 2, 3), rtol=1e-6)
        assert read_origin(path).ras_shape == data.shape
        np.testing.assert_allclose(read_origin(path).spacing_mm, (1, 2, 3), rtol=1e-6)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.5, 3)] * 3),
)
def test_oblique_scans_are_turned_to_the_closest_axes(tmp_path, angles, spacing):
    data, affine = brain((7, 9, 8)), np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    expected = nib.as_closest_canonical(nib.load(write(tmp_path / "scan.nii", data, affine)))
    volume = read_volume(tmp_path / "scan.nii")
    np.testing.assert_array_equal(volume.data, expected.get_fdata())
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-5)
    np.testing.assert_allclose(volume.spacing_mm, expected.header.get_zooms(), rtol=1e-4)


def test_file_formats(tmp_path):
    data = brain().round().astype(np.int16)
    scaled = nib.Nifti1Image(data, AFFINE)
    scaled.header.set_slope_inter(0.5, 0)
    images = {
        "a.nii": nib.Nifti1Image(data, AFFINE),
        "b.nii.gz": nib.Nifti2Image(data, AFFINE),
        "big.nii": nib.Nifti1Image(data, AFFINE, nib.Nifti1Header(endianness=">")),
        "pair.img": nib.Nifti1Pair(data, AFFINE),
        "surfer.mgz": nib.MGHImage(data, AFFINE),
        "one.nii.gz": nib.Nifti1Image(data[..., None], AFFINE),
        "double.nii": nib.Nifti1Image(data.astype(np.float64), AFFINE),
    }
    for name, image in images.items():
        nib.save(image, tmp_path / name)
        volume = read_volume(tmp_path / name)
        assert volume.data.dtype == np.float32, name
        np.testing.assert_array_equal(volume.data, data, name)
        np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5, err_msg=name)
    assert nib.load(tmp_path / "big.nii").header.endianness == ">"
    np.testing.assert_array_equal(read_volume(tmp_path / "pair.hdr").data, data)

    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[112:120] = np.array([0.5, 0], "<f4").tobytes()  # scl_slope and scl_inter
    (tmp_path / "scaled.nii").write_bytes(raw)
    np.testing.assert_array_equal(read_volume(tmp_path / "scaled.nii").data, data / 2)


def test_negative_values_belong_to_a_brain(tmp_path):
    data = brain()
    data[10, 12, 8], data[0, 0, 0] = -3, -1
    np.testing.assert_array_equal(read_volume(write(tmp_path / "a.nii", data)).data, data)


@pytest.mark.parametrize("level", [-1.0, 1000.0])
def test_a_background_of_another_value_becomes_0(tmp_path, level):
    data = np.where(brain() > 0, brain() + level, level).astype(np.float32)
    volume = read_volume(write(tmp_path / "a.nii", data))
    np.testing.assert_allclose(volume.data, brain(), atol=1e-4)
    assert ((volume.data == 0) == (brain() == 0)).all() and volume.background == level


def test_what_splines_leave_of_a_brain_is_background(tmp_path):
    """Cubic splines move a brain by half a voxel and ring around it; nothing is exactly 0."""
    plain = np.pad(brain((40, 48, 32)), 20)
    moved = ndimage.shift(plain.astype(np.float64), 0.5, order=3, mode="mirror")
    assert np.count_nonzero(moved == 0) < 0.2 * moved.size
    volume = read_volume(write(tmp_path / "a.nii", moved))
    near = ndimage.binary_dilation(plain != 0, np.ones((3, 3, 3)), iterations=4)
    assert volume.background == 0 and not volume.data[~near].any()
    kept = volume.data != 0
    assert kept[ndimage.binary_erosion(plain != 0, iterations=2)].all(), "no brain is lost"
    np.testing.assert_array_equal(volume.data[kept], moved[kept].astype(np.float32))


@pytest.mark.parametrize("n_dark", [0, 40])
def test_nearly_black_tissue_on_zeros_stays_as_it_is(tmp_path, n_dark):
    data = brain()
    inside = np.flatnonzero(data)
    data.ravel()[inside[:n_dark]] = 1e-3
    volume = read_volume(write(tmp_path / "a.nii", data))
    assert volume.background is None
    np.testing.assert_array_equal(volume.data, data)


def spoiled(index, value):
    data = brain()
    data[index] = value
    return data


VOLUME_FAULTS = {
    "2-D": (np.ones((20, 20), np.float32), r"3-D.*\(20, 20\)"),
    "one slice": (brain((20, 20, 1)), r"3-D.*\(20, 20, 1\)"),
    "4-D": (np.stack([brain()] * 2, axis=-1), r"3-D.*\(20, 24, 16, 2\)"),
    "no voxel": (np.zeros((4, 0, 4), np.float32), "empty"),
    "empty": (np.zeros((8, 8, 8), np.float32), "empty"),
    "constant": (np.full((8, 8, 8), 7, np.float32), "constant"),
    "constant brain": ((brain() > 0).astype(np.uint8), "constant"),
    "negative constant brain": ((brain() > 0).astype(np.int16) * -4, "constant"),
    "nan": (spoiled((3, 4, 5), np.nan), "1 of 7680 NaN or infinite"),
    "infinite": (spoiled((3, 4, 5), -np.inf), "NaN or infinite"),
    "no background": (head(), "0% zero voxels.*HD-BET"),
    "a little background": (np.maximum(brain(), 10) * (np.indices((20, 24, 16))[0] > 2), "HD-BET"),
    "complex": (brain().astype(np.complex64), "complex64"),
    "color": (np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "one real number"),
}


@pytest.mark.parametrize("name", VOLUME_FAULTS)
def test_unfit_volumes_are_refused(tmp_path, name):
    data, cause = VOLUME_FAULTS[name]
    with pytest.raises(InputError, match=cause) as caught:
        read_volume(write(tmp_path / "scan.nii.gz", data))
    assert str(tmp_path / "scan.nii.gz") in str(caught.value)
    assert ";" in str(caught.value), "a remedy follows the cause"


def test_a_whole_head_is_refused_for_its_size(tmp_path):
    head = write(tmp_path / "head.nii", brain((60, 60, 60)), np.diag([4, 4, 4, 1]))
    with pytest.raises(InputError, match=r"liters.*predict the raw scan with --prepare"):
        read_volume(head)


def test_unusable_affines_are_refused(tmp_path):
    for affine in (np.diag([1, 1, 0, 1]), np.diag([1, np.nan, 1, 1])):
        image = nib.Nifti1Image(brain(), np.eye(4))
        image.header["sform_code"], image.header["vox_offset"] = 1, 352
        for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
            image.header[name] = affine[row]
        raw = image.header.binaryblock + bytes(4) + image.dataobj.tobytes(order="F")
        (tmp_path / "scan.nii").write_bytes(raw)
        with pytest.raises(InputError, match=r"scan\.nii: expected an affine"):
            read_volume(tmp_path / "scan.nii")


def test_missing_and_damaged_files_are_refused(tmp_path):
    whole = write(tmp_path / "whole.nii.gz", brain()).read_bytes()
    plain = gzip.decompress(whole)
    files = {
        "empty.nii.gz": b"",
        "half.nii.gz": whole[: len(whole) // 2],
        "short.nii": plain[:-100],
        "header.nii": plain[:200],
        "flipped.nii.gz": whole[:4000] + bytes(64) + whole[4064:],
        "text.nii": b"subject,split,image,mask\n" * 40,
        "text.nii.gz": b"<html>404 not found</html>",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: expected a complete volume"):
            read_volume(tmp_path / name)
    nib.save(nib.Nifti1Pair(brain(), AFFINE), tmp_path / "pair.img")
    (tmp_path / "pair.img").unlink()
    with pytest.raises(InputError, match=r"pair\.img: expected a volume, found no such file"):
        read_volume(tmp_path / "pair.hdr")
    with pytest.raises(InputError, match="no such file"):
        read_origin(tmp_path / "missing.nii.gz")
    nib.save(nib.gifti.GiftiImage(), tmp_path / "surface.gii")
    with pytest.raises(InputError, match=r"surface\.gii: .*found the ending '\.gii'"):
        read_volume(tmp_path / "surface.gii")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    place=st.integers(0, 359),
    value=st.binary(min_size=1, max_size=8),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
def test_a_damaged_header_never_ends_in_another_error(tmp_path, place, value, suffix):
    raw = bytearray(nib.Nifti1Image(brain((6, 7, 8)), AFFINE).to_bytes())
    raw[place : place + len(value)] = value
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(gzip.compress(raw) if suffix == ".nii.gz" else raw)
    try:
        volume = read_volume(path)
    except InputError as fault:
        assert str(path) in str(fault)
    else:
        assert volume.data.ndim == 3
        assert np.isfinite(volume.data).all()


def test_masks_are_binary_on_the_grid_of_their_image(tmp_path):
    data = brain((7, 9, 8))
    labels = np.zeros(data.shape, np.float32)
    labels[2:4, 3:6, 1:4], labels[4, 4, 4] = 2, 1
    image = read_volume(write(tmp_path / "image.nii", data, AFFINE))
    for codes in ("RAS", "LPS", "SRP"):
        nib.save(reoriented(labels, AFFINE, codes), tmp_path / "mask.nii")
        mask = read_mask(tmp_path / "mask.nii", image.origin)
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, labels > 0)
    nearly = AFFINE + np.array([0, 0, 0, 0.05]) * np.eye(4, 1)
    np.testing.assert_array_equal(
        read_mask(write(tmp_path / "mask.nii", labels, nearly), image.origin), labels > 0
    )


def test_masks_on_another_grid_are_refused(tmp_path):
    data = brain((7, 9, 8))
    image = read_volume(write(tmp_path / "image.nii", data, AFFINE))
    shifted, turned = AFFINE.copy(), AFFINE.copy()
    shifted[0, 3] += 1
    turned[0, 0] = -1
    for affine in (shifted, turned, np.diag([1.1, 2, 3, 1])):
        with pytest.raises(InputError, match=r"mask\.nii: expected the affine.*resample"):
            read_mask(write(tmp_path / "mask.nii", data, affine), image.origin)
    with pytest.raises(InputError, match=r"mask\.nii: expected a mask.*\(7, 9, 8\).*\(7, 9, 7\)"):
        read_mask(write(tmp_path / "mask.nii", data[..., 1:], AFFINE), image.origin)
    data[0, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"mask\.nii: expected finite"):
        read_mask(write(tmp_path / "mask.nii", data, AFFINE), image.origin)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real scan is not here")
def test_a_real_scan_and_its_tumor():
    image = read_volume(REAL / "TCGA-DU-7294_T2w.nii.gz")
    mask = read_mask(REAL / "TCGA-DU-7294_tumour.nii.gz", image.origin)
    stored = nib.load(REAL / "TCGA-DU-7294_T2w.nii.gz")
    assert nib.aff2axcodes(stored.affine) == ("L", "P", "S")
    np.testing.assert_array_equal(image.data, stored.get_fdata()[::-1, ::-1])
    assert image.data[mask].mean() > image.data[image.data != 0].mean()


def test_labels_are_told_from_rounding(tmp_path):
    """As a scaled file or interpolation leaves it: 1e-7 is no anomaly."""
    data = brain((7, 9, 8))
    image = read_volume(write(tmp_path / "image.nii", data))
    labels = np.where(data > 100, 1 - 1e-6, np.where(data > 50, 1e-7, -1e-7)).astype(np.float32)
    mask = read_mask(write(tmp_path / "mask.nii", labels), image.origin)
    np.testing.assert_array_equal(mask, data > 100)
