"""Streams that do not fail a command, and a JAX that is too old for any."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from cradl_jax.cli import guard
from cradl_jax.errors import InputError

SCRIPT = """
import sys
from cradl_jax.cli import guard
guard.keep_streams()
for number in range(20000):
    print("\\u2013", number)
print("done", file=sys.stderr)
"""


def piped(reader: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    """Run the script with its output piped into a reader; the status is the script's."""
    line = f'"$0" -c "$1" | {reader}; exit ${{PIPESTATUS[0]}}'
    return subprocess.run(
        ["bash", "-c", line, sys.executable, SCRIPT],
        capture_output=True,
        text=True,
        env={"PYTHONIOENCODING": encoding, "PATH": "/usr/bin:/bin"},
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_work_goes_on_where_nobody_reads_any_more(reader):
    result = piped(reader)
    assert (result.returncode, result.stderr) == (0, "done\n")


def test_a_letter_that_the_encoding_lacks_is_written_as_its_code():
    result = piped("tail -1", "ascii")
    assert (result.returncode, result.stdout) == (0, "\\u2013 19999\n")


@pytest.mark.parametrize("found", ["0.6.2", "0.4.38.dev1", "none"])
def test_an_old_jax_is_named_before_anything_runs(found, monkeypatch):
    def version(name):
        if found == "none":
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(guard.metadata, "version", version)
    message = f"JAX: expected version 0.7 or later, found {found}; pip install -r requirements.txt"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        guard.require_jax()


def test_the_oldest_jax_is_that_of_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert f"jax>={'.'.join(map(str, guard.OLDEST_JAX))}" in project["dependencies"]
