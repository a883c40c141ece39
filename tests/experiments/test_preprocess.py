import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from ml_collections import ConfigDict
from nibabel import arrayproxy

from cradl_jax.data.scans.volumes import read_volume
from cradl_jax.data.slices.scan_statistics import describe, read_descriptions
from cradl_jax.errors import InputError
from experiments.study import screening
from experiments.study.data_sets import stores
from experiments.study.preprocessing import preprocess
from tests.helpers.scans import brain, head, write

LESION = (brain() > 140).astype(np.uint8)


@pytest.fixture
def config(tmp_path):
    """Four healthy scans in a CSV file and four patients in BIDS, whose splits are drawn."""
    rows = ["subject,split,image,mask"]
    for i in range(4):
        write(tmp_path / f"h{i}.nii", brain(seed=i))
        rows.append(f"h{i},{'val' if i == 3 else 'train'},h{i}.nii,")
    (tmp_path / "healthy.csv").write_text("\n".join(rows))
    for i in range(4):
        subject = tmp_path / "lesion" / f"sub-{i}" / "anat"
        write(subject / f"sub-{i}_T2w.nii.gz", brain(seed=9 + i))
        masks = tmp_path / "lesion" / "derivatives" / "masks" / f"sub-{i}" / "anat"
        write(masks / f"sub-{i}_label-lesion_mask.nii.gz", LESION)
    sets = {
        "lesion": {
            "layout": "bids",
            "path": "lesion",
            "offset": 1,
            "splits": {"val": 1, "test": -1},
        },
        "healthy": {"layout": "csv", "path": "healthy.csv"},
    }
    data = {"root": str(tmp_path), "contrast": "T2w", "size": 12, "field_mm": 48.0, "span": "brain"}
    data |= {"detrend": True, "slice_spacing_mm": None, "workers": 2, "seed": 0}
    return ConfigDict({"data": data | {"sets": sets}})


def test_slices_of_another_contrast_are_refused(config, tmp_path):
    """The setting was changed and the scans were not sliced again; a list is taken as it is."""
    preprocess(config, tmp_path / "run")
    config.data.contrast = "T1w"
    message = "lesion: expected slices of the contrast T1w, found those of T2w; run python -m"
    with pytest.raises(InputError, match=message):
        stores(config, tmp_path / "run")
    message = r"\*_T1w\.nii\.gz \(layout 'bids'\), found none, but scans of T2w"
    with pytest.raises(InputError, match=message):
        preprocess(config, tmp_path / "run")


def test_every_data_set_becomes_a_store(config, tmp_path, capsys):
    preprocess(config.lock(), tmp_path / "run")
    opened = stores(config, tmp_path / "run")
    assert list(opened) == ["healthy", "lesion"]
    healthy, lesion = opened.values()
    assert (len(healthy.rows("train")), len(healthy.rows("val"))) == (3 * 12, 12)
    assert (len(lesion.rows("val")), len(lesion.rows("test"))) == (10, 3 * 10)
    assert not healthy.masks.any() and lesion.masks.any()
    assert "lesion test: 3 scans, 30 slices" in capsys.readouterr().out

    written = (lesion.path / "images.npy").stat().st_mtime_ns
    preprocess(config, tmp_path / "run")
    assert (lesion.path / "images.npy").stat().st_mtime_ns == written
    config.data.sets.lesion.offset = 2
    with pytest.raises(InputError, match=r"lesion: .*offset: expected 2, found 1"):
        stores(config, tmp_path / "run")
    (mask,) = (tmp_path / "lesion").rglob("sub-0_label-lesion_mask.nii.gz")
    mask.rename(tmp_path / "aside.nii.gz")
    with pytest.raises(InputError, match=r"sub-0_T2w\.nii\.gz: expected a mask"):
        preprocess(config, tmp_path / "run")
    assert "made again" not in capsys.readouterr().err, "nothing is, where scans are at fault"
    (tmp_path / "aside.nii.gz").rename(mask)
    preprocess(config, tmp_path / "run")
    (warning,) = [x for x in capsys.readouterr().err.splitlines() if "made again" in x]
    assert re.search(r"lesion: .*offset: expected 2, found 1", warning)
    assert len(stores(config, tmp_path / "run")["lesion"].rows("test")) == 3 * 8


def test_training_scans_that_are_unlike_the_others_are_named(config, tmp_path, capsys):
    nib.save(nib.Nifti1Image(brain(seed=1), None), tmp_path / "h1.nii")
    preprocess(config, tmp_path / "run")
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "unlike the" in line]
    named = str(tmp_path / "h1.nii")
    assert warning.startswith(f"warning: {named}: unlike the other training scans. ")
    assert "does not say how the head lies" in warning
    ((path, why),) = screening.table(stores(config, tmp_path / "run")["healthy"]).rows
    assert path == named and "does not say how the head lies" in why


def test_data_sets_that_both_start_at_subject_0(config, tmp_path):
    listed = (tmp_path / "healthy.csv").read_text()
    (tmp_path / "healthy.csv").write_text(re.sub(r"^h(\d)", r"sub-\1", listed, flags=re.M))
    with pytest.raises(InputError, match=r"subject 0: .* --config\.data\.separate"):
        preprocess(config, tmp_path / "run")
    config.data.separate = "lesion,stroke"
    with pytest.raises(InputError, match=r"data\.separate: expected data sets of .* found stroke;"):
        preprocess(config, tmp_path / "run")
    config.data.separate = "lesion"
    preprocess(config, tmp_path / "run")
    assert list(stores(config, tmp_path / "run")) == ["healthy", "lesion"]


@pytest.fixture
def reads(monkeypatch):
    """An entry for every time that nibabel reads the voxels of a file."""
    reads, read = [], arrayproxy.array_from_file

    def counted(*args, **kwargs):
        reads.append(args)
        return read(*args, **kwargs)

    monkeypatch.setattr(arrayproxy, "array_from_file", counted)
    return reads


def test_every_scan_is_read_once_also_for_thresholds(config, tmp_path, reads):
    preprocess(config, tmp_path / "run")
    assert len(reads) == 4 + 4 + 4, "images, and masks of the lesions"
    opened = stores(config, tmp_path / "run")
    kept = read_descriptions(opened["healthy"].path)
    assert len(reads) == 12
    assert kept == [describe(read_volume(tmp_path / f"h{i}.nii")) for i in range(3)], "of training"
    assert read_descriptions(opened["lesion"].path) == []
    reads.clear()
    preprocess(config, tmp_path / "run")
    assert not reads


def test_a_fault_completes_no_store_and_only_its_scan_is_read_again(config, tmp_path, reads):
    good = (tmp_path / "h1.nii").read_bytes()
    write(tmp_path / "h1.nii", head())
    with pytest.raises(InputError, match=r"h1\.nii: .*brain-extracted"):
        preprocess(config, tmp_path / "run")
    folders = [path.name for path in (tmp_path / "run" / "slices").iterdir()]
    assert sorted(folders) == ["healthy.partial", "lesion.partial"]
    (tmp_path / "h1.nii").write_bytes(good)
    reads.clear()
    preprocess(config, tmp_path / "run")
    assert len(reads) == 1
    preprocess(config, tmp_path / "whole")
    for path in (tmp_path / "whole" / "slices").rglob("*.npy"):
        assert (
            path.read_bytes()
            == (tmp_path / "run" / path.relative_to(tmp_path / "whole")).read_bytes()
        )


def test_masks_without_an_anomaly_in_a_whole_data_set_are_a_fault(config, tmp_path):
    for mask in (tmp_path / "lesion" / "derivatives").rglob("*.nii.gz"):
        write(mask, np.zeros_like(LESION))
    with pytest.raises(InputError, match=r"the other 3 scans of its data set.*found none in any"):
        preprocess(config, tmp_path / "run")
    assert not (tmp_path / "run" / "slices" / "lesion").exists()


def test_lists_of_splits_are_written_and_used(config, tmp_path):
    preprocess(config, tmp_path / "run")
    lists = {path.name: path.read_text() for path in (tmp_path / "run" / "splits").glob("*.csv")}
    assert lists["healthy.csv"] == "subject,split\nh0,train\nh1,train\nh2,train\nh3,val\n"
    assert lists.keys() == {"healthy.csv", "lesion.csv"}
    preprocess(config, tmp_path / "again")
    assert (tmp_path / "again" / "splits" / "lesion.csv").read_text() == lists["lesion.csv"]
    seeds = []
    for seed in range(1, 6):
        config.data.seed = seed
        preprocess(config, tmp_path / "run")
        seeds.append((tmp_path / "run" / "splits" / "lesion.csv").read_text())
    assert set(seeds) != {lists["lesion.csv"]}

    mine = tmp_path / "mine.csv"
    mine.write_text("subject,split\n0,test\n1,test\n2,val\n3,held_out\n")
    config.data.sets.lesion.split_file = str(mine)
    preprocess(config, tmp_path / "run")
    opened = stores(config, tmp_path / "run")["lesion"]
    assert {s: set(opened.subjects[opened.rows(s)]) for s in ("val", "test")} == {
        "val": {"sub-2"},
        "test": {"sub-0", "sub-1"},
    }
    assert "sub-3,held_out" in (tmp_path / "run" / "splits" / "lesion.csv").read_text()
    healthy = tmp_path / "healthy_splits.csv"  # it counts more than the data set's own column
    healthy.write_text("subject,split\nh0,val\nh1,train\nh2,val\nh3,train\n")
    config.data.sets.healthy.split_file = str(healthy)
    preprocess(config, tmp_path / "run")
    assert len(stores(config, tmp_path / "run")["healthy"].rows("val")) == 2 * 12

    mine.write_text("subject,split\n0,test\n1,test\n2,val\n9,val\n")
    healthy.unlink()
    with pytest.raises(InputError) as caught:
        preprocess(config, tmp_path / "other")
    for pattern in (
        r"mine\.csv: expected a row for each of the 4 subjects.*found none for 1 \(3\)",
        r"mine\.csv: expected subjects of the data set, found 1 \(9\)",
        r"data set 'healthy': .*healthy_splits\.csv: .*no such file",
    ):
        assert re.search(pattern, str(caught.value)), pattern
    mine.write_text("subject,split\n" + "".join(f"{i},held_out\n" for i in range(4)))
    config.data.sets.healthy.split_file = None
    with pytest.raises(InputError, match=r"data set 'lesion': .* val and test, found none"):
        preprocess(config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_data_set_can_have_slices_of_its_own_thickness(config, tmp_path):
    config.data.slice_spacing_mm = 4.0
    config.data.sets.lesion.slice_spacing_mm = 1.0
    preprocess(config, tmp_path / "run")
    opened = stores(config, tmp_path / "run")
    assert len(opened["healthy"].rows("val")) == 12 * 2 / 4
    assert len(opened["lesion"].rows("val")) == 12 * 2 / 1 - 2


def test_all_faults_of_all_data_sets_are_listed_at_once(config, tmp_path):
    write(tmp_path / "h1.nii", head())
    write(tmp_path / "h2.nii", np.stack([brain()] * 2, axis=-1))
    write(tmp_path / "lesion_mask.nii", LESION)
    (tmp_path / "h3.nii").write_bytes((tmp_path / "h3.nii").read_bytes()[:1000])
    with (tmp_path / "healthy.csv").open("a") as file:
        file.write("\nh4,train,h4.nii,\nh0,val,h0.nii,lesion_mask.nii\nsub-2,train,h0.nii,")
    masks = tmp_path / "lesion" / "derivatives" / "masks"
    (masks / "sub-0" / "anat" / "sub-0_label-lesion_mask.nii.gz").unlink()
    write(masks / "sub-1" / "anat" / "sub-1_label-lesion_mask.nii.gz", LESION, np.eye(4))
    write(tmp_path / "lesion" / "sub-3" / "anat" / "sub-3_T2w.nii.gz", brain((20, 24, 3)))
    config.data.sets.third = config.data.sets.lesion.copy_and_resolve_references()
    config.data.sets.third.path = "nowhere"
    with pytest.raises(InputError) as caught:
        preprocess(config, tmp_path / "run")
    faults = str(caught.value).splitlines()[1:]
    for pattern in (
        r"healthy\.csv, line 6: .*h4\.nii, found no such file",
        r"h1\.nii: .*brain-extracted",
        r"h2\.nii: .*3-D volume",
        r"h3\.nii: .*cannot be read",
        r"h0\.nii: expected once in data set 'healthy', found 3 times",
        r"subject h0: expected in one split",
        r"subject 2: expected in one split .*train of 'healthy'.* of 'lesion'",
        r"lesion_mask\.nii: expected no anomaly in a healthy data set",
        r"sub-0_T2w\.nii\.gz: expected a mask of its anomalies",
        r"sub-1_label-lesion_mask\.nii\.gz: expected the affine",
        r"sub-3_T2w\.nii\.gz: expected more than 2 axial slices",
        r"sub-3_label-lesion_mask\.nii\.gz: expected a mask of its image's shape",
        r"data set 'third': .*nowhere: .*no such path",
    ):
        assert sum(bool(re.search(pattern, fault)) for fault in faults) == 1, (pattern, faults)
    assert len(faults) == 13, "\n".join(faults)
    assert not (tmp_path / "run").exists()


def test_a_csv_of_patients_needs_a_mask_for_some(config, tmp_path):
    config.data.sets.patients = ConfigDict({"layout": "csv", "path": "p.csv"})
    write(tmp_path / "mask.nii", LESION)
    rows = ["subject,split,image,mask", "a,val,a.nii,", "b,test,b.nii,"]
    for i, name in enumerate("ab"):
        write(tmp_path / f"{name}.nii", brain(seed=20 + i))
    (tmp_path / "p.csv").write_text("\n".join(rows))
    with pytest.raises(InputError, match=r"a\.nii and the other 1 scans.*found none"):
        preprocess(config, tmp_path / "run")
    (tmp_path / "p.csv").write_text("\n".join(rows) + "mask.nii")
    preprocess(config, tmp_path / "run")
    assert stores(config, tmp_path / "run")["patients"].masks.any()


def test_missing_things_come_with_instructions(config, tmp_path):
    with pytest.raises(InputError, match=r"run python -m experiments\.preprocess first"):
        stores(config, tmp_path / "run")
    config.data.root = None
    with pytest.raises(InputError, match=r"run/data: .*found none; name it with.*CRADL_DATA"):
        preprocess(config, tmp_path / "run")
    config.phantom = ConfigDict()
    with pytest.raises(InputError, match=r"run/data: .*experiments\.phantom.*CRADL_DATA"):
        preprocess(config, tmp_path / "run")
    del config.data.sets["healthy"]
    with pytest.raises(InputError, match="'healthy'"):
        preprocess(config, tmp_path / "run")


def test_the_command_ends_in_status_two_without_a_traceback(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.preprocess", "--config=configs/phantom.py"),
            *(f"--workdir={tmp_path}", "--config.data.root=/nowhere"),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: /nowhere: expected the folder of the data sets")
