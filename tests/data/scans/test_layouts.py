import copy
import re
from pathlib import Path

import pytest

from cradl_jax.data.scans.contrasts import stated
from cradl_jax.data.scans.layouts import Scan, find_scans, stem
from cradl_jax.data.scans.volumes import read_volume
from cradl_jax.errors import InputError
from tests.helpers.scans import brain, write


def touch(root: Path, *names: str) -> list[Path]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return [root / name for name in names]


def test_bids(tmp_path):
    one, two, three, *masks = touch(
        tmp_path,
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_acq-tse_T2w.nii",
        "sub-02/ses-b/anat/sub-02_ses-b_T2w.nii.gz",
        "derivatives/masks/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
        "derivatives/masks/sub-02/ses-a/anat/sub-02_ses-a_space-T2w_label-lesion_mask.nii.gz",
        "derivatives/deep/er/sub-02/ses-b/anat/sub-02_ses-b_label-lesion_mask.nii",
    )
    touch(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T2w.json",
        "sub-01/anat/._sub-01_T2w.nii.gz",
        "sub-01/anat/sub-01_PDT2w.nii.gz",
        "derivatives/hdbet/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
        "derivatives/hdbet/sub-01/anat/sub-01_T2w.nii.gz",
    )
    (tmp_path / "participants.tsv").write_text(
        "\ufeffparticipant_id\tage\tsplit\r\nsub-02\t3\tval\r\nsub-01\t9\tn/a\r\n"
    )
    assert find_scans(tmp_path, "bids") == [
        Scan("sub-01", one, masks[0], None),
        Scan("sub-02", two, masks[1], "val"),
        Scan("sub-02", three, masks[2], "val"),
    ]


def test_every_fault_of_a_bids_folder_is_named(tmp_path):
    touch(
        tmp_path,
        "sub-01/anat/sub-01_T2w.nii.gz",
        "derivatives/rater1/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
        "derivatives/rater2/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
    )
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tsplit\nsub-01\ttrain\nsub-01\ttest\nsub-02\tvalid\nsub-03\tval\n"
    )
    with pytest.raises(InputError) as caught:
        find_scans(tmp_path, "bids")
    lines = str(caught.value).splitlines()
    assert lines[0] == "4 faults:"
    for line, pattern in zip(
        lines[1:],
        (
            r"participants\.tsv, line 3: sub-01 was listed before",
            r"participants\.tsv, line 4: expected split train, val, test, found 'valid'",
            r"sub-01_T2w\.nii\.gz: expected one mask.*rater1.*rater2",
            r"participants\.tsv: sub-03 is in split 'val', but .*sub-03 holds no",
        ),
        strict=True,
    ):
        assert re.search(pattern, line), line
    assert str(copy.copy(caught.value)) == str(caught.value)  # as a worker process passes it on


def test_only_masks_that_name_an_anomaly_annotate_one(tmp_path):
    """Those of anatomy are passed over, others are a fault: a scan without a mask is healthy."""
    masks = "derivatives/seg/sub-01/anat/sub-01_{}_mask.nii.gz"
    touch(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz", *map(masks.format, ("desc-brain", "label-WM")))
    assert [scan.mask for scan in find_scans(tmp_path, "bids")] == [None]
    (lesion,) = touch(tmp_path, masks.format("desc-MSLesions"))
    assert [scan.mask for scan in find_scans(tmp_path, "bids")] == [lesion]
    touch(tmp_path, masks.format("desc-preproc"), "derivatives/seg/sub-01/anat/sub-01_mask.nii.gz")
    with pytest.raises(InputError) as caught:
        find_scans(tmp_path, "bids")
    for found in (r"sub-01_desc-preproc_mask.*found preproc;", r"sub-01_mask\..*found neither;"):
        assert re.search(found, str(caught.value))


@pytest.mark.parametrize(
    ("layout", "one", "other"),
    [
        ("bids", "sub-01/anat/sub-01_T2w.nii", "sub-01/anat/sub-01_T2w.nii.gz"),
        ("brats", "a/a_t2.nii", "a/a_t2.nii.gz"),
        ("hcp", "1/T2w_acpc_dc_restore_brain.nii", "1/T2w_acpc_dc_restore_brain.nii.gz"),
        ("hcp", "1/T1w/T2w_acpc_dc_restore_brain.nii", "1/T2w_acpc_dc_restore_brain.nii"),
        ("isles2015", "1/VSD.Brain.XX.O.MR_T2.1.nii", "1/VSD.Brain.XX.O.MR_T2.1.nii.gz"),
    ],
)
def test_a_scan_that_lies_there_twice_is_named(tmp_path, layout, one, other):
    touch(tmp_path, one, other)
    with pytest.raises(InputError, match=f"expected one file of a scan, found .*{Path(one).stem}"):
        find_scans(tmp_path, layout)


@pytest.mark.parametrize("ending", [".NII.GZ", ".Nii", ".mgz", ".hdr"])
def test_endings_are_read_in_any_spelling_and_of_any_volume(tmp_path, ending):
    """A pair is one scan, named by its header, and a file beside it none."""
    layouts = {
        "bids": ("sub-1/anat/sub-1_T2w", "derivatives/m/sub-1/anat/sub-1_label-lesion_mask"),
        "brats": ("a/a_t2", "a/a_seg"),
        "isles2015": ("1/VSD.Brain.XX.O.MR_T2.1", "1/VSD.Brain.XX.O.OT.2"),
        "hcp": ("1/T2w_acpc_dc_restore_brain", None),
    }
    for layout, (image, mask) in layouts.items():
        root = tmp_path / layout
        touch(root, *(f"{name}{ending}" for name in (image, mask) if name), f"{image}.json")
        if ending == ".hdr":
            touch(root, f"{image}.img")
        (scan,) = find_scans(root, layout)
        assert scan.image == root / f"{image}{ending}"
        assert scan.mask == (root / f"{mask}{ending}" if mask else None)


@pytest.mark.parametrize(
    "rows",
    [
        b'participant_id\tsplit\tcomment\nsub-01\tval\tsays "no\n',
        b'"participant_id"\t"split"\n"sub-01"\t"val"\n',
        "participant_id\tsite\tsplit\nsub-01\tKöln\tval\n".encode("latin-1"),
    ],
)
def test_only_the_columns_needed_of_participants_must_be_sound(tmp_path, rows):
    touch(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz")
    (tmp_path / "participants.tsv").write_bytes(rows)
    assert [scan.split for scan in find_scans(tmp_path, "bids")] == ["val"]


def test_links_that_lead_nowhere_are_named(tmp_path):
    """As in a DataLad data set whose files were not fetched; a scan must not pass for healthy."""
    (one,) = touch(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz")
    mask = tmp_path / "derivatives/masks/sub-01/anat/sub-01_label-lesion_mask.nii.gz"
    image = tmp_path / "sub-02/anat/sub-02_T2w.nii.gz"
    for link in (mask, image):
        link.parent.mkdir(parents=True)
        link.symlink_to(tmp_path / ".git/annex/objects/absent")
    with pytest.raises(InputError) as fault:
        find_scans(tmp_path, "bids")
    lines = str(fault.value).splitlines()
    for path in (mask, image):
        assert sum(f"{path}: expected a link to a file" in line for line in lines) == 1
    mask.unlink()
    image.unlink()
    assert find_scans(tmp_path, "bids") == [Scan("sub-01", one, None, None)]


def test_hcp(tmp_path):
    images = touch(
        tmp_path,
        "100206/T2w_acpc_dc_restore_brain.nii.gz",
        "100307/T1w/T2w_acpc_dc_restore_brain.nii.gz",
    )
    touch(tmp_path, "100307/T1w/T1w_acpc_dc_restore_brain.nii.gz")
    assert find_scans(tmp_path, "hcp") == [
        Scan("100206", images[0], None, None),
        Scan("100307", images[1], None, None),
    ]


def test_brats(tmp_path):
    files = touch(
        tmp_path,
        "BraTS-GLI-00000-000/BraTS-GLI-00000-000-t2w.nii.gz",
        "BraTS-GLI-00000-000/BraTS-GLI-00000-000-seg.nii.gz",
        "BraTS-GLI-00000-001/BraTS-GLI-00000-001-t2w.nii.gz",
        "BraTS-GLI-00000-001/BraTS-GLI-00000-001-seg.nii.gz",
        "HGG/Brats17_TCIA_1_1/Brats17_TCIA_1_1_t2.nii.gz",
        "HGG/Brats17_TCIA_1_1/Brats17_TCIA_1_1_seg.nii.gz",
        "LGG/Brats18_2013_0_1/Brats18_2013_0_1_t2.nii",
        "LGG/Brats18_2013_0_1/Brats18_2013_0_1_seg.nii",
        "x/BraTS20_Training_355/BraTS20_Training_355_t2.nii",
    )
    touch(
        tmp_path,
        "HGG/Brats17_TCIA_1_1/Brats17_TCIA_1_1_t1.nii.gz",
        "HGG/Brats17_TCIA_1_1/Brats17_TCIA_1_1_flair.nii.gz",
        "x/BraTS20_Training_355/W39_1998.09.19_Segm.nii",
        "BraTS-GLI-00000-000/BraTS-GLI-00000-000-t2f.nii.gz",
    )
    assert find_scans(tmp_path, "brats") == [
        Scan("BraTS-GLI-00000", files[0], files[1], None),
        Scan("BraTS-GLI-00000", files[2], files[3], None),
        Scan("Brats17_TCIA_1_1", files[4], files[5], None),
        Scan("Brats18_2013_0_1", files[6], files[7], None),
        Scan("BraTS20_Training_355", files[8], None, None),
    ]


def test_isles2015(tmp_path):
    one, one_mask, two, two_mask = touch(
        tmp_path,
        "Training/1/VSD.Brain.XX.O.MR_T2.70616/VSD.Brain.XX.O.MR_T2.70616.nii",
        "Training/1/VSD.Brain.XX.O.OT.70622/VSD.Brain.XX.O.OT.70622.nii",
        "Training/2/VSD.Brain.XX.O.MR_T2.70624.nii.gz",
        "Training/2/VSD.Brain.XX.O.OT.70626.nii.gz",
    )
    touch(tmp_path, "Training/1/VSD.Brain.XX.O.MR_DWI.7/VSD.Brain.XX.O.MR_DWI.7.nii")
    assert find_scans(tmp_path, "isles2015") == [
        Scan("1", one, one_mask, None),
        Scan("2", two, two_mask, None),
    ]


EVERY_CONTRAST = {
    "bids": {
        "T2w": "sub-1/anat/sub-1_T2w.nii.gz",
        "T1w": "sub-1/ses-a/anat/sub-1_ses-a_acq-mprage_T1w.nii.gz",
        "FLAIR": "sub-1/anat/sub-1_FLAIR.nii.gz",
        "PDw": "sub-1/anat/sub-1_PDw.nii.gz",
        None: "sub-1/anat/sub-1_ce-gadolinium_T1w.nii.gz",
    },
    "hcp": {
        "T2w": "1/T1w/T2w_acpc_dc_restore_brain.nii.gz",
        "T1w": "1/T1w/T1w_acpc_dc_restore_brain.nii.gz",
        None: "1/T1w/T1w_acpc_dc_restore.nii.gz",
    },
    "brats": {
        "T2w": "BraTS-GLI-1-000/BraTS-GLI-1-000-t2w.nii.gz",
        "T1w": "BraTS-GLI-1-000/BraTS-GLI-1-000-t1n.nii.gz",
        "FLAIR": "BraTS-GLI-1-000/BraTS-GLI-1-000-t2f.nii.gz",
        None: "BraTS-GLI-1-000/BraTS-GLI-1-000-t1c.nii.gz",
    },
    "brats before 2023": {
        "T2w": "HGG/Brats17_A_1/Brats17_A_1_t2.nii.gz",
        "T1w": "HGG/Brats17_A_1/Brats17_A_1_t1.nii.gz",
        "FLAIR": "HGG/Brats17_A_1/Brats17_A_1_flair.nii.gz",
        None: "HGG/Brats17_A_1/Brats17_A_1_t1ce.nii.gz",
    },
    "isles2015": {
        "T2w": "1/VSD.Brain.XX.O.MR_T2.4/VSD.Brain.XX.O.MR_T2.4.nii",
        "T1w": "1/VSD.Brain.XX.O.MR_T1.5/VSD.Brain.XX.O.MR_T1.5.nii",
        "FLAIR": "1/VSD.Brain.XX.O.MR_Flair.6/VSD.Brain.XX.O.MR_Flair.6.nii",
        None: "1/VSD.Brain.XX.O.MR_T1c.7/VSD.Brain.XX.O.MR_T1c.7.nii",
    },
}
"""A file of each contrast that a layout holds, and one that is of none of them."""


@pytest.mark.parametrize("case", EVERY_CONTRAST)
def test_a_layout_gives_the_scans_of_a_contrast_alone(tmp_path, case):
    layout, files = case.split()[0], EVERY_CONTRAST[case]
    for name in files.values():
        write(tmp_path / name, brain())
    held = [contrast for contrast in files if contrast]
    for contrast in held:
        (scan,) = find_scans(tmp_path, layout, contrast)
        assert scan.image == tmp_path / files[contrast]
        assert stated(stem(scan.image)) == contrast, "as predict reads its name"
    assert find_scans(tmp_path, layout) == find_scans(tmp_path, layout, "T2w")
    for contrast in {"T2w", "T1w", "FLAIR", "PDw"} - set(held):
        message = f"{contrast}, found layout '{layout}', which holds {', '.join(held)} alone"
        with pytest.raises(InputError, match=f"{tmp_path}: expected .*{message}"):
            find_scans(tmp_path, layout, contrast)


def test_a_contrast_that_is_not_there_is_named_with_those_that_are(tmp_path):
    (one,) = touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
    message = r"sub-\*_T2w\.nii\.gz \(layout 'bids'\), found none, but scans of T1w \(config"
    with pytest.raises(InputError, match=message):
        find_scans(tmp_path, "bids")
    assert find_scans(tmp_path, "bids", "T1w") == [Scan("sub-01", one, None, None)]
    (tmp_path / "participants.tsv").write_text("participant_id\tsplit\nsub-2\tval\n")
    with pytest.raises(InputError, match=r"sub-2 holds no \*_T1w\.nii\.gz"):
        find_scans(tmp_path, "bids", "T1w")
    with pytest.raises(InputError, match="one of T2w, T1w, FLAIR, PDw, found 't1'"):
        find_scans(tmp_path, "bids", "t1")


def test_masks_belong_to_the_scan_of_every_contrast(tmp_path):
    for contrast, name in (("T1w", "a_t1"), ("FLAIR", "a_flair"), ("T2w", "a_t2")):
        image, mask = touch(tmp_path, f"a/{name}.nii.gz", "a/a_seg.nii.gz")
        assert find_scans(tmp_path, "brats", contrast) == [Scan("a", image, mask, None)]


@pytest.mark.parametrize("contrast", ["T2w", "T1w", "PDw"])
def test_a_list_is_taken_as_it_is(tmp_path, contrast):
    write(tmp_path / "a_T1w.nii", brain())
    (tmp_path / "scans.csv").write_text("subject,split,image,mask\na,train,a_T1w.nii,\n")
    (scan,) = find_scans(tmp_path / "scans.csv", "csv", contrast)
    assert scan.image == tmp_path / "a_T1w.nii"


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        *(("sub-1_T2w", "T2w"), ("sub-1_ses-a_acq-tse_T2w", "T2w"), ("T2w_acpc_x", "T2w")),
        *(("case_t2", "T2w"), ("BraTS-GLI-00000-000-t2w", "T2w"), ("VSD.O.MR_T2.70616", "T2w")),
        *(("T1", "T1w"), ("case_t1", "T1w"), ("a-t1n", "T1w"), ("sub-1_T1w_brain", "T1w")),
        *(("a_flair", "FLAIR"), ("a-t2f", "FLAIR"), ("VSD.O.MR_Flair.70614", "FLAIR")),
        *(("sub-1_PDw", "PDw"), ("IXI002-Guys-0828-PD", "PDw")),
        *((f"a_{end}", "contrast-enhanced T1w") for end in ("t1ce", "T1c", "t1Gd")),
        ("sub-1_ce-gadolinium_T1w", "contrast-enhanced T1w"),
        ("sub-1_space-T2w_desc-preproc_T1w", "T1w"),
        *((name, None) for name in ("scan", "", "sub-lesion015", "PD_017_brain", "T1_visit_scan")),
        *((name, None) for name in ("sub-1_space-T2w_brain", "T1w_to_T2w_x", "a_PDT2w", "a_T1map")),
    ],
)
def test_names_state_a_contrast_at_their_end_or_clearly(name, contrast):
    assert stated(name) == contrast


def test_csv(tmp_path, monkeypatch):
    scan = write(tmp_path / "data" / "scans" / "a b.nii", brain())
    mask = write(tmp_path / "elsewhere" / "m.nii", brain())
    table = tmp_path / "data" / "scans.csv"
    table.write_bytes(
        "\ufeffsubject, split ,image,mask,site\r\n"
        f"A,train,scans/a b.nii,,x\r\n\r\nB,test,{scan},../elsewhere/m.nii\r\n".encode()
    )
    monkeypatch.chdir(tmp_path / "data")
    first, second = find_scans(Path("scans.csv"), "csv")
    monkeypatch.chdir("/")
    assert (first.subject, first.split, first.mask) == ("A", "train", None)
    assert (second.subject, second.split, second.image) == ("B", "test", scan)
    assert second.mask.resolve() == mask
    assert read_volume(first.image).data.shape == brain().shape


def test_every_fault_of_a_csv_is_named_with_its_line(tmp_path):
    write(tmp_path / "a.nii", brain())
    table = tmp_path / "scans.csv"
    table.write_text(
        "subject,split,image,mask\na,train,a.nii,\nb,dev,a.nii,\n\n,val,a.nii,\n"
        "d,val,,\ne,test,no.nii,\nf,test,a.nii,gone/mask.nii\ng,test\n"
    )
    with pytest.raises(InputError) as caught:
        find_scans(table, "csv")
    found = re.findall(r"scans\.csv, line (\d+): expected (.*?)[,;]", str(caught.value))
    assert found == [
        ("3", "split train"),
        ("5", "'subject'"),
        ("6", "'image'"),
        ("7", f"the image {tmp_path}/no.nii"),
        ("8", f"the mask {tmp_path}/gone/mask.nii"),
        ("9", "'image'"),
    ]


def test_unreadable_tables_are_refused(tmp_path):
    table = tmp_path / "scans.csv"
    for content, cause in (
        (b"subject,image,mask\na,b,c\n", "line 1: .*found subject, image, mask: split missing"),
        (b"subject;split;image;mask\n", "subject, split, image, mask missing"),
        (b"", "found none"),
        ("subject,split,image,mask\n".encode("utf-16"), "UTF-8"),
        (b"subject,split,image,mask\n", "expected a row for each scan"),
    ):
        table.write_bytes(content)
        with pytest.raises(InputError, match=cause):
            find_scans(table, "csv")


def test_wrong_places_are_refused(tmp_path):
    table = tmp_path / "scans.csv"
    table.touch()
    for path, layout, cause in (
        (tmp_path, "dicom", "expected one of bids, hcp, brats, isles2015, csv, found 'dicom'"),
        (tmp_path / "no", "bids", "no: .*found no such path"),
        (tmp_path, "csv", "expected a file for layout 'csv', found a folder"),
        (table, "bids", "expected a folder for layout 'bids', found a file"),
        (tmp_path, "bids", r"expected sub-\*/anat.*found none"),
        (tmp_path, "hcp", "T2w_acpc_dc_restore_brain"),
        (tmp_path, "brats", "_t2.nii.gz"),
        (tmp_path, "isles2015", "MR_T2"),
    ):
        with pytest.raises(InputError, match=cause):
            find_scans(path, layout)
