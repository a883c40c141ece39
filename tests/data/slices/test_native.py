"""Slice maps sent back to their scan: against functions of position in mm, scipy, and nibabel."""

import gzip
import time
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator
from scipy.spatial.transform import Rotation

from cradl_jax.data.scans.volumes import read_origin, read_volume
from cradl_jax.data.slices.native import slice_centers_mm, to_scan_grid, to_volume, write_map
from cradl_jax.data.slices.preprocess import slice_geometry, slice_volume
from cradl_jax.errors import InputError
from tests.data.scans.test_volumes import AFFINE, AXES, reoriented
from tests.helpers.scans import brain, write

on_files = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def positions(shape, affine):
    """[X, Y, Z, 3] millimeters."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return nib.affines.apply_affine(affine, index)


def raw_header(path):
    with gzip.open(path) as file:
        return nib.Nifti1Header.from_fileobj(file, check=False)


@settings(on_files, max_examples=60)
@given(
    shape=st.tuples(*[st.integers(24, 44)] * 3),
    spacing=st.tuples(*[st.floats(0.6, 2.5)] * 3),
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    mirrored=st.booleans(),
    center=st.tuples(*[st.floats(-0.15, 0.15)] * 3),
    width=st.floats(0.06, 0.1),
    size=st.integers(16, 64),
    slice_mm=st.none() | st.floats(0.7, 3),
    offset=st.integers(0, 2),
    view=st.none() | st.floats(1.1, 2),
)
def test_a_blob_comes_back_where_it_was(
    tmp_path, shape, spacing, angles, mirrored, center, width, size, slice_mm, offset, view
):
    """Slices show the whole volume, or `view` times the width of the blob, around it if needed."""
    extent = np.array(shape) * spacing
    center, width = np.array(center) * extent, width * extent.min()
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = turn * spacing * ([-1, 1, 1] if mirrored else [1, 1, 1])
    affine[:3, 3] = [40, -30, 20] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    target = [40, -30, 20] + turn @ center
    distance = np.linalg.norm(positions(shape, affine) - target, axis=-1)
    blob = np.exp(-0.5 * (distance / width) ** 2)
    blob[distance > 4 * width] = 0
    scan = write(tmp_path / "scan.nii.gz", blob.astype(np.float32), affine)

    volume = read_volume(scan)
    depth = 8 * width if view else volume.data.shape[2] * volume.spacing_mm[2]
    assume(offset * (slice_mm or volume.spacing_mm[2]) < 0.1 * depth)  # the blob is not left out
    how = {"size": size, "offset": offset, "slice_spacing_mm": slice_mm}
    whole = max(np.multiply(volume.data.shape, volume.spacing_mm)[:2])
    how["field_mm"] = view * 8 * width if view else whole
    inside = volume.data > 0 if view else np.ones(volume.data.shape, bool)
    slices = slice_volume(volume.data, inside, None, volume.spacing_mm, **how)
    geometry = slices.geometry
    back = to_volume(slices.images, geometry)
    write_map(tmp_path / "map.nii.gz", back, volume.origin)

    stored, found = nib.load(scan), nib.load(tmp_path / "map.nii.gz")
    assert found.shape == stored.shape and found.get_data_dtype() == np.float32
    np.testing.assert_array_equal(found.affine, stored.affine)
    values = found.get_fdata()
    middle = (values[..., None] * positions(shape, found.affine)).sum((0, 1, 2)) / values.sum()
    coarsest = max(*spacing, geometry.pixel_mm / 2, geometry.slice_mm / 2)
    assert np.linalg.norm(middle - target) < coarsest
    assert abs(values.sum() / blob.sum() - 1) < 0.2, "the values keep their unit"
    if 2 * max(*spacing, geometry.pixel_mm, geometry.slice_mm) < width:
        assert np.abs(values - blob).max() < 0.25


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(10, 40), st.integers(10, 40), st.integers(12, 30)),
    spacing=st.tuples(*[st.floats(0.5, 1.5)] * 3),
    size=st.integers(3, 12),
    offset=st.integers(0, 3),
    view=st.floats(0.5, 2),
    around=st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 3),
    span=st.sampled_from(["brain", "volume"]),
    seed=st.integers(0, 99),
)
def test_between_the_centers_it_is_linear(shape, spacing, size, offset, view, around, span, seed):
    """The brain is a box with empty voxels `around` it; slices are `view` times as wide as it."""
    inside = np.zeros(shape, bool)
    inside[tuple(slice(low, n - high) for (low, high), n in zip(around, shape, strict=True))] = True
    thick, field_mm = 2 * spacing[2], view * max(np.multiply(shape, spacing)[:2])
    assume(max(spacing[:2]) <= field_mm / size)
    assume((shape[2] - (sum(around[2]) if span == "brain" else 0)) // 2 >= 2 * offset + 2)
    how = {"size": size, "field_mm": field_mm, "slice_spacing_mm": thick, "span": span}
    geometry = slice_geometry(inside, spacing, offset=offset, **how)
    maps = np.random.default_rng(seed).normal(size=(geometry.n_slices, size, size))
    pixels = (np.arange(size) - (size - 1) / 2) * geometry.pixel_mm
    heights = (np.arange(geometry.n_slices) - (geometry.n_slices - 1) / 2) * thick
    points = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    middle = [(low - high) / 2 * s for (low, high), s in zip(around, spacing, strict=True)]
    middle[2] *= span == "brain"
    centers = (pixels + middle[0], pixels + middle[1], heights + middle[2])
    inside = [np.clip(x, c[0], c[-1]) for x, c in zip(points, centers, strict=True)]
    linear = RegularGridInterpolator(centers[::-1], maps[:, ::-1, ::-1])
    x, y, z = np.meshgrid(*inside, indexing="ij")
    expected = linear(np.stack([z, y, x], axis=-1))
    edges = size * geometry.pixel_mm / 2, geometry.n_slices * thick / 2
    expected[np.abs(points[0] - middle[0]) > edges[0] + 1e-5] = 0
    expected[:, np.abs(points[1] - middle[1]) > edges[0] + 1e-5] = 0
    expected[..., np.abs(points[2] - middle[2]) > edges[1] + 1e-5] = 0
    np.testing.assert_allclose(to_volume(maps, geometry), expected, atol=1e-4)


def test_slices_of_the_scan_itself_keep_their_values_and_dropped_ones_are_zero():
    geometry = slice_geometry(np.ones((8, 8, 12), bool), (1, 1, 3), size=8, field_mm=8, offset=2)
    maps = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    volume = to_volume(maps, geometry)
    assert volume.dtype == np.float32
    np.testing.assert_array_equal(volume[..., 2:-2], maps[:, ::-1, ::-1].T)
    assert not volume[..., :2].any() and not volume[..., -2:].any()


def test_outside_the_brain_it_is_zero():
    inside = brain((20, 30, 16)) != 0
    geometry = slice_geometry(inside, (2, 1, 1), size=16, field_mm=40, offset=1)
    (low, *_, high) = np.flatnonzero(inside.any((0, 1)))
    maps = np.ones((high - low - 1, 16, 16))
    expected = inside.copy()
    expected[:, :, [low, high]] = False
    np.testing.assert_allclose(to_volume(maps, geometry, inside), expected, rtol=1e-6)


def test_voxels_larger_than_pixels_hold_a_mean():
    how = {"size": 32, "field_mm": 32, "slice_spacing_mm": 1}
    geometry = slice_geometry(np.ones((4, 4, 4), bool), (8, 8, 8), **how)
    maps = np.random.default_rng(0).normal(5, 1, (32, 32, 32)).astype(np.float32)
    volume = to_volume(maps, geometry)
    assert volume.std() < 0.1 and abs(volume.mean() - 5) < 0.05


@pytest.mark.parametrize("behind_mm", [5, 12])
def test_the_heights_of_slices_are_those_of_the_voxels_they_show(behind_mm):
    shape, spacing = (10, 12, 21), (1.0, 1.0, 0.8)
    affine = np.diag([*spacing, 1])
    affine[:3, :3] = Rotation.from_euler("x", 20, degrees=True).as_matrix() * spacing
    affine[:3, 3] = 3, 4, 5
    heights = positions(shape, affine)[..., 2].astype(np.float32)
    how = {"size": 11, "field_mm": 12, "offset": 1, "slice_spacing_mm": 1.6}
    behind = np.indices(shape)[1] < behind_mm
    slices = slice_volume(heights, behind, None, spacing, **how)
    found = slice_centers_mm(slices.geometry, affine)[:, 2]
    middle = slices.images[:, 5, 4:7].mean(1)
    np.testing.assert_allclose(found, middle, atol=0.2)


def test_maps_of_another_scan_are_refused():
    geometry = slice_geometry(np.ones((8, 8, 12), bool), (1, 1, 1), size=8, field_mm=8, offset=2)
    with pytest.raises(InputError, match=r"8x8 pixels for each of 8 slices.*\(7, 8, 8\)"):
        to_volume(np.zeros((7, 8, 8)), geometry)
    with pytest.raises(InputError, match=r"brain: expected.*\(8, 8, 12\).*\(8, 8, 11\)"):
        to_volume(np.zeros((8, 8, 8)), geometry, np.ones((8, 8, 11), bool))
    with pytest.raises(InputError, match="NaN"):
        to_volume(np.full((8, 8, 8), np.nan), geometry)


def test_every_order_of_axes(tmp_path):
    data = brain((7, 9, 8))
    path = tmp_path / "map.nii.gz"
    for codes in AXES:
        scan = tmp_path / "scan.nii"
        nib.save(reoriented(data, AFFINE, codes), scan)
        stored = nib.load(scan)
        np.testing.assert_array_equal(to_scan_grid(data, read_origin(scan)), stored.get_fdata())
        write_map(path, data / 3, read_origin(scan))
        np.testing.assert_array_equal(nib.load(path).affine, stored.affine)
        np.testing.assert_array_equal(read_volume(path).data, data / 3)


def formats(data):
    """Scans with all that a header may say about where the voxels lie."""
    oblique = AFFINE.copy()
    oblique[:3, :3] = Rotation.from_euler("xyz", (10, -20, 30), degrees=True).as_matrix() * (
        1,
        2,
        3,
    )
    both, q_only, none, units = (nib.Nifti1Image(data, oblique) for _ in range(4))
    both.set_qform(oblique, "scanner")
    both.set_sform(AFFINE, "mni")
    q_only.set_qform(oblique, "scanner")
    q_only.set_sform(None, "unknown")
    none.set_qform(None, "unknown")
    none.set_sform(None, "unknown")
    units.header.set_xyzt_units("mm", "sec")
    big = nib.Nifti1Image(data, oblique, nib.Nifti1Header(endianness=">"))
    integers = nib.Nifti1Image(data.astype(np.int16), oblique)
    integers.header.set_slope_inter(0.5, 0)
    integers.header["descrip"], integers.header["cal_max"] = b"Jane Doe", 7
    return {
        "both.nii.gz": both,
        "q.nii": q_only,
        "none.nii": none,
        "units.nii": units,
        "big.nii": big,
        "integers.nii.gz": integers,
        "two.nii": nib.Nifti2Image(data, oblique * (1 + 1e-12)),
        "pair.img": nib.Nifti1Pair(data, oblique),
        "four.nii": nib.Nifti1Image(data[..., None, None], oblique),
        "surfer.mgz": nib.MGHImage(data, oblique),
        "analyze.img": nib.Spm2AnalyzeImage(data, np.diag([-2, 2, 3, 1])),
    }


@pytest.mark.parametrize("name", formats(brain((7, 9, 8))))
def test_the_header_says_what_the_scans_says(tmp_path, name):
    data = brain((7, 9, 8))
    scan, path = tmp_path / name, tmp_path / "out" / "map.nii.gz"
    nib.save(formats(data)[name], scan)
    volume = np.random.default_rng(0).normal(size=read_volume(scan).data.shape).astype(np.float32)
    write_map(path, volume * 1e-7, read_origin(scan))
    stored, found = nib.load(scan), nib.load(path)
    assert found.shape == stored.shape
    np.testing.assert_allclose(found.affine, stored.affine, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(read_volume_of(found), volume * np.float32(1e-7))
    if isinstance(stored.header, nib.Nifti1Header):
        np.testing.assert_array_equal(found.affine, stored.affine)
        for field in ("qform_code", "sform_code", "xyzt_units", "pixdim"):
            np.testing.assert_array_equal(found.header[field], stored.header[field], field)
        for get in ("get_qform", "get_sform"):
            np.testing.assert_array_equal(*(getattr(x.header, get)() for x in (found, stored)))
    else:
        assert found.header["qform_code"] == found.header["sform_code"] == 1
        assert found.header.get_xyzt_units()[0] == "mm"
    assert found.header["descrip"] == b"" and found.header["cal_max"] == 0
    assert [p.name for p in path.parent.iterdir()] == ["map.nii.gz"]


def read_volume_of(image):
    return nib.as_closest_canonical(image).get_fdata(dtype=np.float32).squeeze()


def test_values_are_stored_without_scaling_and_masks_as_bytes(tmp_path):
    data = brain((7, 9, 8))
    scan = write(tmp_path / "scan.nii.gz", data, AFFINE)
    write_map(tmp_path / "map.nii.gz", data.astype(np.float64), read_origin(scan))
    write_map(tmp_path / "mask.nii.gz", data > 100, read_origin(scan))
    for name, kind in (("map", np.float32), ("mask", np.uint8)):
        header = raw_header(tmp_path / f"{name}.nii.gz")
        assert header.get_data_dtype() == kind
        assert (header["scl_slope"], header["scl_inter"]) == (1, 0)
    mask = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), data > 100)


def test_unfit_output_is_refused(tmp_path):
    data = brain((7, 9, 8))
    scan = write(tmp_path / "scan.nii.gz", data, AFFINE)
    with pytest.raises(InputError, match=r"map\.nii: expected a name that ends in \.nii\.gz"):
        write_map(tmp_path / "map.nii", data, read_origin(scan))
    with pytest.raises(InputError, match=r"scan\.nii\.gz: expected \(7, 9, 7\).*\(7, 9, 8\)"):
        write_map(tmp_path / "map.nii.gz", data[..., 1:], read_origin(scan))
    with pytest.raises(InputError, match="no such file"):
        write_map(tmp_path / "map.nii.gz", data, read_origin(tmp_path / "lost.nii.gz"))
    assert [p.name for p in tmp_path.iterdir()] == ["scan.nii.gz"]


def test_a_scan_of_the_papers_size_takes_little_time_and_memory():
    inside = np.ones((240, 240, 155), bool)
    geometry = slice_geometry(inside, (1, 1, 1), size=128, field_mm=224, offset=10)
    maps = np.ones((135, 128, 128), np.float32)
    tracemalloc.start()
    start = time.perf_counter()
    volume = to_volume(maps, geometry, inside)
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert volume.shape == (240, 240, 155)
    assert seconds < 1 and peak < 100e6
