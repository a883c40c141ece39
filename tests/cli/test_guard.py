"""Streams that do not fail a command."""

import subprocess
import sys

import pytest

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
