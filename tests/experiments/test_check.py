"""What experiments.check says of scans on disk, against figures worked by hand."""

import re
import shutil
from collections import namedtuple

import nibabel as nib
import numpy as np
import pytest

from cradl_jax.errors import InputError
from experiments.study import checking, preprocessing
from tests.helpers import commands
from tests.helpers.scans import brain, write
from tests.helpers.tiny_study import tiny_config

LPS = np.diag([-2.0, -2.0, 2.0, 1.0])
IXI = {"IXI002-Guys-0828-T2": "train", "IXI012-HH-1211-T2": "train", "IXI100-Guys-0747-T2": "val"}
PATIENTS = {"01": ("val", "Ulm"), "02": ("test", "Ulm"), "03": ("test", "n/a")}
LESION = (brain() > 140).astype(np.uint8)
FIGURES = """\
healthy: layout csv, {root}/healthy.csv
  train: subjects 2, scans 2, at most 32 slices
  val: subjects 1, scans 1, at most 20 slices
  shape along R, A, S: 20-22 x 24 x 16-20 voxels
  spacing along R, A, S: 1-2 x 1-2 x 1-2 mm
  orientation: RAS 1, LPS 1, LAS 1; stated by 2 of 3 files
  contrast by file name: T2w 3
  sites: Guys 2, HH 1
lesion: layout bids, {root}/patients
  val: subjects 1, scans 1, at most 16 slices
  test: subjects 2, scans 2, at most 32 slices
  shape along R, A, S: 20 x 24 x 16 voxels
  spacing along R, A, S: 2 x 2 x 2 mm
  orientation: RAS 3; stated by 3 of 3 files
  contrast by file name: T2w 3
  sites: Ulm 2, not named 1
  annotated: 3 of 3 scans have a mask; 2 (67%) have an anomaly in it
disk: slices take at most 0.6 MB more, heatmaps at most 0.5 MB at a time; """


def mask_of(root, number):
    name = f"sub-{number}_label-lesion_mask.nii.gz"
    return root / "patients" / "derivatives" / "masks" / f"sub-{number}" / "anat" / name


def image_of(root, number):
    return root / "patients" / f"sub-{number}" / "anat" / f"sub-{number}_T2w.nii.gz"


@pytest.fixture
def root(tmp_path):
    """Three healthy scans named as in IXI, one LPS, one that says nothing; three patients."""
    root, (first, second, third) = tmp_path / "data", IXI
    write(root / f"{first}.nii.gz", brain(seed=1))
    write(root / f"{second}.nii.gz", brain(seed=2), LPS)
    nib.save(nib.Nifti1Image(brain((22, 24, 20), seed=3), None), root / f"{third}.nii.gz")
    rows = [f"{name[:6]},{split},{name}.nii.gz," for name, split in IXI.items()]
    (root / "healthy.csv").write_text("\n".join(["subject,split,image,mask", *rows]))
    lines = ["participant_id\tsplit\tsite"]
    for number, (split, site) in PATIENTS.items():
        write(image_of(root, number), brain(seed=10 + int(number)))
        write(mask_of(root, number), LESION * (number != "02"))
        lines.append(f"sub-{number}\t{split}\t{site}")
    (root / "patients" / "participants.tsv").write_text("\n".join(lines))
    return root


@pytest.fixture
def config(root):
    config = tiny_config()
    config.data.root = str(root)
    config.data.sets.lesion = {"layout": "bids", "path": "patients", "offset": 0}
    config.train.batch_size = 8
    return config


@pytest.fixture
def half_a_second(monkeypatch):
    """The methods whose steps are timed; each step takes half a second."""
    timed = []
    monkeypatch.setattr(
        checking, "seconds_per_step", lambda config, method: timed.append(method) or 0.5
    )
    return timed


def faults_of(config, workdir):
    with pytest.raises(InputError) as caught:
        checking.check(config, workdir)
    assert not workdir.exists()
    return caught.value.args


def test_figures_are_those_worked_by_hand(config, root, tmp_path, half_a_second, capsys):
    config.methods = ("cradl", "vae")
    config.seeds = (0, 1, 2)
    checking.check(config, tmp_path / "run")
    printed = capsys.readouterr().out
    # 100 rows of 32 x 32 pixels of 4 + 1 + 1 bytes; 4 baselines on 32 rows of 4 bytes a pixel
    assert printed.startswith(FIGURES.format(root=root))
    assert "\nmemory, if brains fill their scans: slices: 0.00 GB lie on every device, " in printed
    assert half_a_second == ["cradl", "vae"]
    # 3 seeds x 100 epochs x 32 / 8 steps x 0.5 s is 600 s for each of two methods
    assert "\ntraining: about 20.0 minutes on 4 CPU devices; an estimate " in printed
    method = "seeds 3, epochs 100, steps an epoch 4, 0.5 s a step: 10.0 minutes\n"
    assert printed.endswith(f"\n  cradl: {method}  vae: {method}")
    assert not (tmp_path / "run").exists()


def test_slices_that_are_there_need_no_room(config, tmp_path, half_a_second, capsys):
    preprocessing.preprocess(config, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    capsys.readouterr()
    checking.check(config, tmp_path / "run")
    assert "disk: slices take at most 0.0 MB more" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}


def test_memory_counts_training_and_validation_slices_as_float32(config, tmp_path):
    config.data.size = 1024
    rows = {("healthy", "train"): 300, ("healthy", "val"): 20, ("lesion", "test"): 700}
    disk, memory = checking.needs(config, tmp_path, rows)
    assert "slices: 1.34 GB " in memory, "320 slices of 4 MiB"
    assert disk.startswith("disk: slices take at most 6.4 GB more, heatmaps at most 11.7 GB at")
    config.gmm.components = (1, 2, 4, 8)  # five densities are more than four baselines
    assert checking.bytes_needed(config, tmp_path, rows)[1] == 700 * 1024**2 * 4 * 5


def test_all_faults_are_named_after_the_table(config, root, tmp_path, half_a_second, capsys):
    first, _, third = IXI
    write(root / f"{first}.nii.gz", np.stack([brain()] * 2, axis=-1))
    mask_of(root, "01").unlink()
    write(mask_of(root, "03"), LESION, np.eye(4))
    with (root / "healthy.csv").open("a") as file:
        file.write(f"\nIXI012,val,{third}.nii.gz,")
    faults = faults_of(config, tmp_path / "run")
    for pattern in (
        rf"{third}\.nii\.gz: expected once in data set 'healthy', found 2 times",
        r"subject IXI012: expected in one split",
        rf"{first}\.nii\.gz: expected a 3-D volume",
        r"sub-01_T2w\.nii\.gz: expected a mask of its anomalies, found none; add it",
        r"sub-03_label-lesion_mask\.nii\.gz: expected the affine of its image",
    ):
        assert sum(bool(re.search(pattern, fault)) for fault in faults) == 1, (pattern, faults)
    assert len(faults) == 5, "\n".join(faults)
    printed = capsys.readouterr().out
    assert "  orientation: LAS 2, LPS 1; stated by 1 of 3 files\n" in printed, "the others"
    assert (
        "annotated: 2 of 3 scans have a mask; 0 (0%) have an anomaly in it; masks not read: 1"
        in printed
    )
    assert "training" not in printed and not half_a_second


def test_batches_that_no_training_could_have(config, tmp_path, half_a_second, capsys):
    config.methods = ("cradl", "vae", "cevae")
    config.overrides.cradl = {"train": {"batch_size": 6}}
    config.train.batch_size = 64
    odd, large = faults_of(config, tmp_path / "run")
    assert odd.startswith("batch size 6 does not divide over 4 devices; choose a multiple of 4")
    assert large.startswith("batch size 64 is larger than the training set of 32 slices; lower")
    assert "disk: " in capsys.readouterr().out and not half_a_second


def test_a_data_set_that_is_missing_and_one_without_an_anomaly(config, root, tmp_path, capsys):
    for number in PATIENTS:
        write(mask_of(root, number), 0 * LESION)
    config.data.sets.healthy.path = "nowhere.csv"
    missing, empty = faults_of(config, tmp_path / "run")
    assert re.match(r"data set 'healthy': .*nowhere\.csv: .*no such path", missing)
    assert re.search(r"the other 2 scans of its data set: .*found none in any", empty)
    assert "nowhere.csv\n  no scan could be listed\nlesion: " in capsys.readouterr().out


def test_a_disk_that_is_too_small_and_a_folder_of_other_files(
    config, tmp_path, monkeypatch, half_a_second
):
    other = tmp_path / "run" / "slices" / "lesion"
    other.mkdir(parents=True)
    (other / "notes.txt").write_text("mine")
    usage = namedtuple("usage", "total used free")(2_000_000, 1_000_000, 1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError) as caught:
        checking.check(config, tmp_path / "run")
    place, disk = caught.value.args
    assert re.search(r"slices/lesion: expected a slice store or nothing", place)
    # 614,400 bytes of slices and 524,288 of heatmaps
    assert re.search(r"expected 1\.1 MB of free disk space.*found 1\.0 MB; free some", disk)


def test_held_out_scans_are_counted_but_not_read(config, root, tmp_path, half_a_second, capsys):
    config.data.sets.lesion.split_file = str(tmp_path / "splits.csv")
    rows = ["subject,split", "01,val", "02,held_out", "03,test"]
    (tmp_path / "splits.csv").write_text("\n".join(rows))
    image_of(root, "02").write_bytes(b"damaged")
    checking.check(config, tmp_path / "run")
    printed = capsys.readouterr().out
    assert "  held_out: subjects 1, scans 1\n" in printed
    assert "annotated: 2 of 2 scans have a mask; 2 (100%)" in printed


def test_times_in_words():
    words = {119: "119.0 seconds", 120: "2.0 minutes", 5400: "90.0 minutes", 7200: "2.0 hours"}
    words |= {90000: "25.0 hours", 864000: "10.0 days"}
    assert {seconds: checking.duration(seconds) for seconds in words} == words


def test_steps_are_timed_until_it_takes_too_long(config, monkeypatch):
    ticks = iter(range(0, 1000, 20))
    monkeypatch.setattr(checking.time, "perf_counter", lambda: next(ticks))
    assert checking.seconds_per_step(config, "cradl") == 20, "two steps: 20 s are not enough"


def test_the_command_ends_in_status_zero_or_two_and_writes_nothing(root, tmp_path):
    arguments = (
        *("--config=configs/scans.py", f"--workdir={tmp_path / 'run'}"),
        *(f"--config.data.healthy={root / 'healthy.csv'}", "--config.data.size=32"),
        *("--config.methods=cradl", "--config.model.features=4", "--config.model.latent=8"),
        *("--config.model.head=(8, 4)", "--config.train.batch_size=8"),
    )
    done = commands.run("check", *arguments)
    assert done.returncode == 0, done.stderr
    assert re.search(r"cradl: .* steps an epoch 4, \S+ s a step: ", done.stdout)
    (root / f"{next(iter(IXI))}.nii.gz").unlink()
    failed = commands.run("check", *arguments)
    assert failed.returncode == 2
    assert re.search(r"^error: .*healthy\.csv, line 2: expected the image", failed.stderr, re.M)
    assert "healthy: layout csv" in failed.stdout
    assert not (tmp_path / "run").exists()


def test_a_page_shows_every_scan_those_that_are_unlike_the_others_first(
    config, root, tmp_path, half_a_second, capsys
):
    rows = (root / "healthy.csv").read_text().splitlines()
    for number in range(8):
        write(root / f"more{number}.nii.gz", brain(seed=20 + number))
        rows.append(f"more{number},train,more{number}.nii.gz,")
    (root / "healthy.csv").write_text("\n".join(rows))
    write(root / "more5.nii.gz", np.ascontiguousarray(brain(seed=25).transpose(2, 1, 0)))
    lost = image_of(root, "02")
    write(lost, np.full((20, 24, 16), np.nan, np.float32))
    place = tmp_path / "pages" / "check.html"
    with pytest.raises(InputError) as caught:
        checking.check(config, tmp_path / "run", place)
    assert [fault for fault in caught.value.args if fault.startswith(f"{lost}: ")]
    assert f"page: {place.as_uri()}" in capsys.readouterr().out
    page = place.read_text()
    assert page.count("<img ") == 11 + 2
    healthy, lesion = page.index(">healthy</h2>"), page.index(">lesion</h2>")
    text = page[healthy:lesion]
    assert "11 scans, " in text and f"{lost}: " in page[lesion:]
    order = [text.index(f"<td>{root}/{name}.nii.gz</td>") for name in ("more5", "more2")]
    assert order == sorted(order), "the scan that lies on its side is first"
    first = text[order[0] : text.index("</tr>", order[0])]
    assert "nothing unusual" not in first and not (tmp_path / "run").exists()
