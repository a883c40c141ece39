import pytest

from cradl_jax.errors import InputError
from cradl_jax.prediction.inputs import InputScan, find_scans, passed_over
from cradl_jax.storage.files import require_writable


def test_scans_are_found_and_named(tmp_path):
    for name in ("b.nii", "a.nii.gz", "a_anomaly.nii.gz", "a_anomaly_mask.nii.gz", "._a.nii.gz"):
        (tmp_path / name).touch()
    (tmp_path / "c.nii").symlink_to("absent")  # of a data set that was not fetched: a fault, later
    (tmp_path / "d.nii").mkdir()
    assert find_scans(tmp_path) == [
        InputScan("a", tmp_path / "a.nii.gz"),
        InputScan("b", tmp_path / "b.nii"),
        InputScan("c", tmp_path / "c.nii"),
    ]
    listed = tmp_path / "list.csv"
    listed.write_text("image,subject\na.nii.gz,one\nb.nii,\n")
    assert [scan.name for scan in find_scans(listed)] == ["one", "b"]
    assert find_scans(tmp_path / "b.nii") == [InputScan("b", tmp_path / "b.nii")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("x/a.nii,\ny/A.nii.gz,", "expected a name of its own, found 'A', which .*a.nii has too"),
        ("x/a.nii,s\ny/b.nii.gz,s", "expected a name of its own"),
        ("x/a.nii,../s", "fit for a file, found '../s'"),
        (",s", "line 2: expected 'image'"),
        ("", "none in it"),
    ],
)
def test_unfit_lists_are_refused(tmp_path, rows, message):
    listed = tmp_path / "list.csv"
    listed.write_text(f"image,subject\n{rows}\n")
    with pytest.raises(InputError, match=message):
        find_scans(listed)


def test_missing_scan_and_unwritable_folder_are_named(tmp_path):
    with pytest.raises(InputError, match="no such path"):
        find_scans(tmp_path / "nowhere.nii.gz")
    with pytest.raises(InputError, match="none in it"):
        find_scans(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("absent")
    for place in (tmp_path / "file" / "out", tmp_path / "link", tmp_path / "link" / "out"):
        with pytest.raises(InputError, match="--out"):
            require_writable(place, "--out")


def test_a_folder_gives_volumes_of_any_kind_and_names_what_it_passes_over(tmp_path):
    volumes = ("a.mgz", "b.NII.GZ", "c.hdr", "d.nii")
    for name in (*volumes, "c.img", "a_anomaly.nii.gz", ".hidden.nii", "notes.txt", "e.dcm"):
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    assert [scan.image.name for scan in find_scans(tmp_path)] == list(volumes)
    assert passed_over(tmp_path) == ["e.dcm", "more", "notes.txt"]
