"""Every bad setting, config and working directory ends in one clear message, before any work."""

import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from cradl_jax.errors import LONGEST
from experiments.cli import command
from experiments.study import app, config_schema
from tests.helpers import commands, corpus, corpus_settings
from tests.helpers.refusals import in_time, refusal  # noqa: F401
from tests.helpers.scans import brain, write

REPOSITORY = Path(__file__).parents[3]
SETTINGS = config_schema.KNOWN  # imported before the time of a message counts


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


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
    command.parse(sys.argv)
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


@pytest.mark.parametrize("name", corpus_settings.SETTINGS)
def test_bad_setting(name, tmp_path, monkeypatch, capsys):
    override, cause = corpus_settings.SETTINGS[name]
    where = f"--workdir={tmp_path / 'work'}"
    message = refused(monkeypatch, capsys, PHANTOM, f"--config.{override}", where)
    assert re.search(cause, message), message
    assert not (tmp_path / "work").exists(), "nothing was begun"


@pytest.mark.parametrize("name", corpus_settings.CONFIGS)
def test_bad_config(name, tmp_path, monkeypatch, capsys):
    content, cause = corpus_settings.CONFIGS[name]
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
    for (name, *arguments), cause in (
        (("preprocess", "--config=configs/scans.py", work, *lists), r"b\.nii: .*pixdim"),
        (("phantom", PHANTOM, work, "--config.train.batch_size=-3"), "batch_size: .*found -3"),
        (("predict", f"--run={tmp_path / 'run.zip'}", f"--scan={tmp_path / 'a.nii'}"), "a pipe"),
    ):
        signal.alarm(60)  # within the time of its start
        found = commands.run(name, *arguments)
        assert found.returncode == 2 and not found.stdout
        lines = [x for x in found.stderr.splitlines() if x and not re.search("scan/s|s/scan", x)]
        assert len(lines) == 1 and re.search(f"^error: .*{cause}", lines[0]), found.stderr


def test_every_setting_of_the_configs_is_declared():
    assert {"train.epochs", "data.sets.offset", "phantom.spacing_mm"} <= set(SETTINGS)
    assert len(SETTINGS) == len(set(SETTINGS)) > 50
