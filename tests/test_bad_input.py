"""Every bad file and setting ends in one clear message, in seconds; odd but valid files work."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import tracemalloc
import warnings
from pathlib import Path

import corpus
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags
from scans import brain, write

from cradl_jax.data import named
from cradl_jax.data.checks import scan_faults
from cradl_jax.data.layouts import Scan, find_scans, raise_faults
from cradl_jax.data.preprocess import normalized_slices
from cradl_jax.data.splits import listed_splits, subject_faults
from cradl_jax.data.volumes import read_grid, read_volume
from cradl_jax.errors import LONGEST, InputError
from experiments import app, command

REPOSITORY = Path(__file__).parents[1]
SECONDS = 5  # that a message may take
MOST_BYTES = 1 << 27  # that it may cost
HOW = {"size": 16, "offset": 1}


@pytest.fixture(autouse=True)
def in_time():
    """What hangs is interrupted and fails."""

    def late(*_):
        raise TimeoutError(f"no answer within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refusal(function, *arguments) -> str:
    """The one line of the InputError that a call must raise, without a warning beside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # of other packages
        warnings.filterwarnings("ignore", module="nibabel")  # as `command.run` does
        with pytest.raises(InputError) as caught:
            function(*arguments)
    message = str(caught.value)
    assert message.isprintable(), "one line, without control characters"
    assert len(message) <= LONGEST
    return message


def slices_of(path: Path) -> np.ndarray:
    """As experiments.predict reads a scan."""
    ((_, image),) = named.find_scans(path)
    volume = read_volume(image)
    return normalized_slices(volume.data, None, volume.spacing_mm, **HOW)[0].images


@pytest.mark.parametrize("name", corpus.VOLUMES)
def test_bad_volume(name, tmp_path, capfd):
    make, cause = corpus.VOLUMES[name]
    path = make(tmp_path)
    tracemalloc.start()
    message = refusal(slices_of, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert re.search(cause, message), message
    assert repr(str(tmp_path))[1:-1] in message and ";" in message
    assert peak < MOST_BYTES or name == "header extension of two gigabytes"  # virtual, of nibabel
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", corpus.ODDITIES)
def test_odd_volume_gives_the_same_slices(name, tmp_path, capfd):
    expected = slices_of(write(tmp_path / "plain" / "plain.nii", corpus.plain(), corpus.AFFINE))
    path = corpus.ODDITIES[name](tmp_path)
    found = slices_of(path)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert read_grid(path)[0] == corpus.SHAPE
    assert capfd.readouterr() == ("", "")


def test_negative_intensities_are_z_scored(tmp_path):
    data = np.where(brain() > 0, brain() - 100, 0)
    assert (data < 0).any()
    found = slices_of(write(tmp_path / "scan.nii", data))
    expected = slices_of(write(tmp_path / "plain.nii", brain()))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_scan_that_may_not_be_read():
    """As another user, since root may read everything."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        path = write(Path(place) / "scan.nii", brain())
        path.chmod(0)
        user = os.geteuid()
        os.seteuid(user or 65534)
        try:
            message = refusal(slices_of, path)
        finally:
            os.seteuid(user)
    assert "Permission denied" in message and "scan.nii" in message


def study(tmp_path, mask=None):
    """The faults of a data set of one scan."""
    image = write(tmp_path / "image.nii", brain(), corpus.AFFINE)
    return lambda annotated: scan_faults([Scan("a", image, mask, "val")], 1, annotated=annotated)


@pytest.mark.parametrize("name", corpus.MASKS)
def test_bad_mask(name, tmp_path):
    make, cause = corpus.MASKS[name]
    (fault,) = study(tmp_path, make(tmp_path))("all")
    message = refusal(raise_faults, [fault])
    assert re.search(cause, message) and str(tmp_path / "mask.nii.gz") in message


def test_masks_that_do_not_suit_their_data_set(tmp_path):
    marked, empty = tmp_path / "marked.nii", tmp_path / "empty.nii"
    write(marked, corpus.lesion(), corpus.AFFINE)
    write(empty, corpus.lesion(0), corpus.AFFINE)
    (fault,) = study(tmp_path, marked)("none")
    assert "marked.nii: expected no anomaly in a healthy data set, found 48 voxels" in fault
    (fault,) = study(tmp_path, empty)("some")
    assert "empty.nii" in fault and "found none in any" in fault
    assert study(tmp_path, marked)("all") == study(tmp_path, empty)("none") == []


def listed(path: Path) -> list[Scan]:
    """As experiments.preprocess reads a list."""
    scans = find_scans(path, "csv")
    raise_faults(subject_faults({"list": scans}))
    return scans


@pytest.fixture
def scans(tmp_path):
    for name in ("a.nii", "b.nii"):
        write(tmp_path / name, brain())
    return tmp_path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", corpus.LISTS)
def test_bad_list(name, scans):
    content, cause = corpus.LISTS[name]
    message = refusal(listed, written(scans / "list.csv", content))
    assert re.search(cause, message), message
    assert str(scans) in message and ";" in message


@pytest.mark.parametrize("name", corpus.NAMES)
def test_bad_name_for_output_files(name, scans):
    content, cause = corpus.NAMES[name]
    message = refusal(named.find_scans, written(scans / "list.csv", content))
    assert re.search(cause, message), message


@pytest.mark.parametrize("kind", ["csv", "bids"])
def test_list_that_is_a_pipe(kind, tmp_path):
    name = "list.csv" if kind == "csv" else "participants.tsv"
    os.mkfifo(tmp_path / name)
    if kind == "csv":
        assert "found a pipe" in refusal(find_scans, tmp_path / name, "csv")
        assert "found a pipe" in refusal(named.find_scans, tmp_path / name)
        assert "found a pipe" in refusal(listed_splits, [], tmp_path / name)
    write(tmp_path / "sub-a\nb" / "anat" / "sub-a\nb_T2w.nii", brain())
    assert "printable" in refusal(find_scans, tmp_path, "bids")


def test_odd_lists_work(scans):
    lines = "subject,split,image,mask\r\na,train,a.nii,\r\n\r\n b , val ,b.nii"
    plain = listed(written(scans / "list.csv", lines.replace("\r", "").encode()))
    for content in (lines, "\ufeff" + lines, lines.replace("mask\r", "mask,,\r")):
        assert listed(written(scans / "list.csv", content.encode())) == plain
    (scans / "below").mkdir()
    outside = f"subject,split,image,mask\na,train,../a.nii,\nb,val,{scans / 'b.nii'},\n"
    found = listed(written(scans / "below" / "list.csv", outside.encode()))
    assert [scan.image.resolve() for scan in found] == [scan.image for scan in plain]


def configured(monkeypatch, *arguments: str):
    """The study of a command line, by the functions that every command of a study calls."""
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", None, flag_values=values)
    workdir = flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.mark_flag_as_required("config", flag_values=values)
    monkeypatch.setattr(flags, "FLAGS", values)
    monkeypatch.setattr(app, "CONFIG", config)
    monkeypatch.setattr(app, "WORKDIR", workdir)
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    command._parse(sys.argv)
    return app.study()


def refused(monkeypatch, capsys, *arguments: str) -> str:
    """The line that a command line ends in, with status 2."""
    try:
        message = refusal(configured, monkeypatch, *arguments)
    except SystemExit as status:
        message = capsys.readouterr().err
        assert status.code == 2 and message.endswith("\n")
        message = message.removesuffix("\n")
    assert message.isprintable() and len(message) <= LONGEST
    return message


PHANTOM = f"--config={REPOSITORY / 'configs' / 'phantom.py'}"


@pytest.mark.parametrize("name", corpus.SETTINGS)
def test_bad_setting(name, tmp_path, monkeypatch, capsys):
    override, cause = corpus.SETTINGS[name]
    where = f"--workdir={tmp_path / 'work'}"
    message = refused(monkeypatch, capsys, PHANTOM, f"--config.{override}", where)
    assert re.search(cause, message), message
    assert not (tmp_path / "work").exists(), "nothing was begun"


@pytest.mark.parametrize("name", corpus.CONFIGS)
def test_bad_config(name, tmp_path, monkeypatch, capsys):
    content, cause = corpus.CONFIGS[name]
    path = written(tmp_path / "study.py", content.encode())
    message = refused(monkeypatch, capsys, f"--config={path}", f"--workdir={tmp_path / 'work'}")
    assert re.search(cause, message), message


def test_configs_that_are_no_files(tmp_path, monkeypatch, capsys):
    os.mkfifo(tmp_path / "pipe.py")
    for path, found in (
        (tmp_path / "gone.py", "no such file"),
        (tmp_path, "a folder"),
        (tmp_path / "pipe.py", "a pipe"),
    ):
        for arguments in ([f"--config={path}"], ["--config", f"{path}"], [f"-config={path}:x"]):
            message = refused(monkeypatch, capsys, *arguments)
            assert f"{path}: expected a config's file, found {found}" in message
    assert "found a folder" in refused(monkeypatch, capsys, "--config=")
    assert "must have a value" in refused(monkeypatch, capsys)


def test_working_directories_that_cannot_be_written_to(tmp_path, monkeypatch, capsys):
    written(tmp_path / "file", b"")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        message = refused(monkeypatch, capsys, PHANTOM, f"--workdir={place}")
        assert f"{place}: expected a folder" in message and "--workdir" in message


@pytest.mark.parametrize(
    "config", [p.name for p in (REPOSITORY / "configs").glob("*.py") if p.name != "default.py"]
)
def test_the_configs_of_the_project_pass(config, tmp_path, monkeypatch):
    path = f"--config={REPOSITORY / 'configs' / config}"
    own = [f"--config.data.{kind}={kind}.csv" for kind in ("healthy", "anomalous")]
    arguments = (*(own if config == "scans.py" else []), f"--workdir={tmp_path}")
    assert configured(monkeypatch, path, *arguments)[1] == tmp_path


def test_lists_named_so_that_no_folder_can_be(tmp_path, monkeypatch, capsys):
    path = f"--config={REPOSITORY / 'configs' / 'scans.py'}"
    for name in ("<script>.csv", "$x^{2}$.csv", ".csv"):
        lists = "--config.data.healthy=a.csv", f"--config.data.anomalous={name}"
        assert "data set's name" in refused(monkeypatch, capsys, path, *lists)


def process(*arguments):
    """A command as it is, within the time of its start."""
    signal.alarm(60)
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def healthy_and_ill(folder: Path) -> list[str]:
    """Lists of four scans, of which one is no scan."""
    for name in ("a", "b", "c", "d"):
        write(folder / f"{name}.nii", brain(), corpus.AFFINE)
    write(folder / "mask.nii", corpus.lesion(), corpus.AFFINE)
    written(folder / "b.nii", corpus.nifti(pixdim=(9, -2, 0, np.nan, 1, 1, 1, 1)))
    for kind, rows in (
        ("healthy", "a,train,a.nii,\nb,val,b.nii,\n"),
        ("ill", "c,val,c.nii,mask.nii\nd,test,d.nii,mask.nii\n"),
    ):
        written(folder / f"{kind}.csv", b"subject,split,image,mask\n" + rows.encode())
    return [
        f"--config.data.healthy={folder / 'healthy.csv'}",
        *(f"--config.data.anomalous={folder / 'ill.csv'}", "--config.data.offset=1"),
    ]


def test_commands_print_one_line_and_end_with_status_2(tmp_path):
    os.mkfifo(tmp_path / "run.zip")
    work = f"--workdir={tmp_path / 'out'}"
    lists = healthy_and_ill(tmp_path)
    for arguments, cause in (
        (("preprocess", "--config=configs/scans.py", work, *lists), r"b\.nii: .*pixdim"),
        (("phantom", PHANTOM, work, "--config.train.batch_size=-3"), "batch_size: .*found -3"),
        (("predict", f"--run={tmp_path / 'run.zip'}", f"--scan={tmp_path / 'a.nii'}"), "a pipe"),
    ):
        found = process(f"experiments.{arguments[0]}", *arguments[1:])
        assert found.returncode == 2 and not found.stdout
        lines = [line for line in found.stderr.splitlines() if line and "checking" not in line]
        assert len(lines) == 1 and re.search(f"^error: .*{cause}", lines[0]), found.stderr
