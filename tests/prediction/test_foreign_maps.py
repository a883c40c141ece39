import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cradl_jax.data.scans.volumes import read_volume
from cradl_jax.data.slices.preprocess import slice_volume
from cradl_jax.errors import InputError
from cradl_jax.prediction import foreign_maps
from cradl_jax.prediction.foreign_maps import (
    MappedScan,
    find_maps,
    read_on_slices,
    read_scan_scores,
    read_scores,
)
from tests.helpers.refusals import in_time, refusal  # noqa: F401
from tests.helpers.scans import brain, write

SHAPE = (20, 24, 16)
SLICING = {"size": 16, "field_mm": 48.0}
A, B = (MappedScan("lesion", name, Path(f"{name}.nii.gz")) for name in ("a", "b"))
OTHER = MappedScan("healthy", "a", Path("healthy/a.nii.gz"))


def place(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_scans_are_named_after_their_files_else_after_their_subjects_or_both():
    def named(*scans):
        return foreign_maps.scan_names(*zip(*((s, Path(p)) for s, p in scans), strict=True))

    assert named(("s1", "x/a_T2w.nii.gz"), ("s1", "x/b_T2w.nii")) == ["a_T2w", "b_T2w"]
    assert named(("s1", "1/T2w.nii.gz"), ("s2", "2/T2w.nii.gz")) == ["s1", "s2"]
    twice = ("s1", "1/a.nii"), ("s1", "1/b.nii"), ("s2", "2/a.nii")
    assert named(*twice) == ["s1_a", "s1_b", "s2_a"]
    message = refusal(named, ("s1", "1/a.nii"), ("s1", "2/a.nii"))
    assert "s1_a" in message and "rename one" in message


def test_maps_are_found_by_their_scans_names(tmp_path):
    place(
        tmp_path, "a_anomaly.nii.gz", "lesion/b.nii", "c.nii.gz", "a_anomaly_mask.nii.gz", "a.txt"
    )
    maps, others = find_maps(tmp_path, [A, B])
    assert maps == [tmp_path / "a_anomaly.nii.gz", tmp_path / "lesion" / "b.nii"]
    assert others == ["c.nii.gz"]


def test_scans_of_one_name_in_two_data_sets_need_folders(tmp_path):
    place(tmp_path, "lesion/a.nii.gz", "healthy/a.nii.gz")
    maps, others = find_maps(tmp_path, [OTHER, A])
    assert maps == [tmp_path / "healthy" / "a.nii.gz", tmp_path / "lesion" / "a.nii.gz"]
    assert not others
    place(tmp_path, "a.nii.gz")
    assert f"{tmp_path}/healthy, {tmp_path}/lesion" in refusal(find_maps, tmp_path, [OTHER, A])


def test_all_missing_maps_and_those_that_lie_there_twice_are_named_at_once(tmp_path):
    place(tmp_path, "b_anomaly.nii.gz", "b.nii.gz", "sub-a.nii.gz")
    with pytest.raises(InputError) as caught:
        find_maps(tmp_path, [A, B])
    missing, twice, others = caught.value.args
    assert re.match(r"a\.nii\.gz: expected its map a_anomaly\.nii\.gz .*, found none; add", missing)
    assert "b.nii.gz: expected one map, found 2" in twice
    assert others.endswith("of none of the scans: sub-a.nii.gz (1)")
    assert "expected a folder" in refusal(find_maps, tmp_path / "gone", [A])


def test_a_scan_is_not_its_own_map(tmp_path):
    place(tmp_path, "a.nii.gz")
    message = refusal(find_maps, tmp_path, [A._replace(image=tmp_path / "a.nii.gz")])
    assert "found the scan itself" in message


@pytest.fixture
def scan(tmp_path):
    return write(tmp_path / "scan.nii.gz", brain(SHAPE))


def read(path, scan):
    return read_on_slices(path, read_volume(scan), SLICING)


def noise(scale=1.0):
    return np.random.default_rng(1).uniform(0, scale, SHAPE).astype(np.float32)


def test_a_map_is_resampled_as_an_image_is(scan, tmp_path):
    found, indices = read(write(tmp_path / "map.nii.gz", noise()), scan)
    inside = brain(SHAPE) != 0
    values = np.where(inside, noise(), 0)
    expected = slice_volume(values, inside, None, (2.0, 2.0, 2.0), **SLICING)
    np.testing.assert_array_equal(found, expected.images)
    layers = np.flatnonzero(inside.any((0, 1)))
    assert indices.tolist() == layers[: len(indices)].tolist()


def test_a_map_whose_axes_are_stored_otherwise_is_the_same_map(scan, tmp_path):
    image = nib.Nifti1Image(noise(), np.diag([2.0, 2, 2, 1]))
    turned = image.as_reoriented(nib.orientations.axcodes2ornt("PSL"))
    assert turned.shape != image.shape
    nib.save(turned, tmp_path / "turned.nii.gz")
    expected, _ = read(write(tmp_path / "map.nii.gz", noise()), scan)
    found, _ = read(tmp_path / "turned.nii.gz", scan)
    np.testing.assert_array_equal(found, expected)


def shifted(millimeters):
    affine = np.diag([2.0, 2, 2, 1])
    affine[0, 3] = millimeters
    return affine


@pytest.mark.parametrize(
    ("data", "affine", "cause"),
    [
        (noise()[1:], None, r"expected a map of its image's shape .*resample the map to the image"),
        (noise(), shifted(5), "moves a corner by 5 mm; resample the map to the image"),
        (noise(), np.diag([1.0, 2, 2, 1]), "moves a corner by 19 mm"),
        (np.where(noise() > 0.5, np.nan, 1), None, "expected finite voxels, found .* NaN"),
        (
            noise() - 0.5,
            None,
            r"expected values from 0 on.*negative ones in the brain, down to -0\.",
        ),
    ],
)
def test_maps_that_do_not_fit_are_refused(data, affine, cause, scan, tmp_path):
    path = write(tmp_path / "map.nii.gz", data.astype(np.float32), affine)
    message = refusal(read, path, scan)
    assert re.search(cause, message) and str(path) in message


def test_what_lies_outside_the_brain_and_what_rounding_left_does_not_count(scan, tmp_path):
    values = np.where(brain(SHAPE) != 0, noise(), -7).astype(np.float32)
    values[10, 12, 8] = -1e-8
    found, _ = read(write(tmp_path / "map.nii.gz", values), scan)
    clean = np.where(brain(SHAPE) != 0, noise(), 0).astype(np.float32)
    clean[10, 12, 8] = 0
    expected, _ = read(write(tmp_path / "clean.nii.gz", clean), scan)
    np.testing.assert_array_equal(found, expected)


def test_scores_are_read_by_scan_and_slice(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("score,index,scan\n1.5,3,a\n-2,4,a\n7,3,b\n0,3,unknown\n")
    table, others = read_scores(path, [A, B])
    assert (table, others) == ({A: {3: 1.5, 4: -2.0}, B: {3: 7.0}}, ["unknown"])
    found = foreign_maps.scores_of(table, A, np.array([4, 3]), path)
    assert found.tolist() == [-2.0, 1.5] and found.dtype == np.float32
    message = refusal(foreign_maps.scores_of, table, A, np.array([2, 3, 4, 5]), path)
    assert "expected a score of each slice of a that shows brain, found none of 2, 5 (2)" in message


def test_scans_of_one_name_need_a_column_of_their_data_set(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("scan,index,score,data_set\na,3,1,lesion\na,3,2,healthy\n")
    assert read_scores(path, [OTHER, A])[0] == {OTHER: {3: 2.0}, A: {3: 1.0}}
    path.write_text("scan,index,score\na,3,1\n")
    assert "add a column data_set" in refusal(read_scores, path, [OTHER, A])


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        ("a,3,nan\n", "line 2: expected a whole number for index and a finite one"),
        ("a,3.5,1\n", "line 2: expected a whole number for index"),
        ("a,,\n", "line 2: expected a whole number"),
        ("a,3,1\nb,3,1\na,3,2\n", "line 4: expected one score of slice 3 of a, found a second"),
    ],
)
def test_bad_scores_are_named_by_line(rows, cause, tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text(f"scan,index,score\n{rows}")
    assert re.search(cause, refusal(read_scores, path, [A, B]))
    path.write_text("scan,score\na,1\n")
    assert "index missing" in refusal(read_scores, path, [A, B])


def test_scores_of_scans_are_read_by_scan(tmp_path):
    path = tmp_path / "scans.csv"
    path.write_text("score,scan,data_set\n1.5,a,lesion\n-2,b,\n1.5,a,lesion\n3,a,healthy\n0,c,\n")
    assert read_scan_scores(path, [A, B, OTHER]) == ({A: 1.5, B: -2.0, OTHER: 3.0}, ["c"])
    assert "add a column data_set" in refusal(read_scan_scores, table(path, "a,1\n"), [A, OTHER])


def table(path, rows):
    path.write_text(f"scan,score\n{rows}")
    return path


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        ("a,nan\nb,1\n", "line 2: expected a finite number for score, found 'nan'; correct it"),
        ("a,1\nb,high\n", "line 3: expected a finite number for score, found 'high'"),
        ("a,1\nb,1\na,2\n", "line 4: expected one score of a, found a second; remove one"),
        ("a,1\n", "expected a score of each validation and test scan, found none of b (1); add"),
        ("", "found none of a, b (2)"),
        (
            "a,1\nb_T2,2\n",
            "of b (1); add them, or correct names that are of no such scan: b_T2 (1)",
        ),
    ],
)
def test_bad_scores_of_scans_are_named_by_line(rows, cause, tmp_path):
    assert cause in refusal(read_scan_scores, table(tmp_path / "scans.csv", rows), [A, B])
