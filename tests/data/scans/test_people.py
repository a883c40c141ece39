"""What files beside scans say of the data set and its people."""

import json

import pytest

from cradl_jax.data.scans import people
from cradl_jax.errors import InputError


def test_the_data_set_of_a_scan_is_the_nearest_folder_that_describes_one(tmp_path):
    root = tmp_path / "set"
    image = root / "sub-1" / "ses-1" / "anat" / "sub-1_T2w.nii.gz"
    image.parent.mkdir(parents=True)
    assert people.root_of(image) is None
    (tmp_path / people.PARTICIPANTS).write_text("participant_id\n")  # too far above
    assert people.root_of(image) is None
    (root / people.DESCRIPTION).write_text("{}")
    assert people.root_of(image) == root and people.root_of(root / "1.nii") == root


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"Name": "IXI", "License": "CC BY-SA 3.0", "DatasetDOI": "10.1/x", "Authors": ["A"]},
            {"Name": "IXI", "License": "CC BY-SA 3.0", "DatasetDOI": "10.1/x"},
        ),
        ({"Name": "/home/me/raw/ixi.csv, prepared"}, {"Name": "ixi.csv, prepared"}),
        ({"Name": "T1/T2 study", "License": 3}, {"Name": "T1/T2 study"}),
        (["Name"], {}),
    ],
)
def test_a_description_says_name_licence_and_doi_and_no_folder(tmp_path, content, expected):
    assert people.description(tmp_path) == {}
    (tmp_path / people.DESCRIPTION).write_text(json.dumps(content))
    assert people.description(tmp_path) == expected
    (tmp_path / people.DESCRIPTION).write_text("{")
    assert people.description(tmp_path) == {}


def test_participants_without_the_cells_that_say_nothing(tmp_path):
    assert people.participants(tmp_path) == {}
    table = tmp_path / people.PARTICIPANTS
    table.write_text("participant_id\tAge\tsite\nsub-1\t31\tN/A\nsub-2\t\tUlm\nsub-3\tNaN\tnone\n")
    assert people.participants(tmp_path) == {
        "sub-1": {"participant_id": "sub-1", "age": "31"},
        "sub-2": {"participant_id": "sub-2", "site": "Ulm"},
        "sub-3": {"participant_id": "sub-3"},
    }
    table.write_text("subject\tage\nsub-1\t31\n")
    with pytest.raises(InputError, match=r"participants\.tsv, line 1: expected the columns"):
        people.participants(tmp_path)


def test_a_site_is_in_the_table_or_in_the_name(tmp_path):
    ixi = tmp_path / "IXI002-Guys-0828-T2.nii.gz"
    assert people.site(ixi, {}) == "Guys"
    assert people.site(ixi, {"site": "HH"}) == "HH"
    assert people.site(tmp_path / "sub-1_T2w.nii.gz", {}) is None
