"""Hashes of finished files, against sha256sum."""

import shutil
import subprocess

import pytest

from cradl_jax.errors import InputError
from cradl_jax.storage import integrity


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.txt", "in/b  c.txt", "in/empty", "partial_d.txt"):
        (tmp_path / name).write_text(name if "." in name else "")
    integrity.write_checksums(tmp_path)
    assert list(integrity.sums(tmp_path)) == ["a.txt"], "what lies in it, but nothing half written"
    integrity.write_checksums(tmp_path, "a.txt", "in", "missing")
    return tmp_path


def test_sums_are_those_of_sha256sum_and_name_what_changed(folder):
    tool = shutil.which("sha256sum")
    if tool:
        assert subprocess.run([tool, "-c", integrity.SUMS], cwd=folder, check=False).returncode == 0
    assert list(integrity.faults(folder)) == [] and len(integrity.sums(folder)) == 3
    (folder / "in" / "b  c.txt").write_text("other")
    (folder / "in" / "empty").unlink()
    found = {fault.path.name: fault.found for fault in integrity.faults(folder)}
    assert found == {
        "b  c.txt": "another content (SHA-256)",
        "empty": "No such file or directory",
    }
    integrity.check(folder, "again", ["a.txt"])
    with pytest.raises(InputError, match=r"b  c\.txt: .*or remove .* and make it"):
        integrity.check(folder, "make it")
    with pytest.raises(InputError, match=r"new\.txt: .*without a checksum"):
        integrity.check(folder, "make it", ["new.txt"])


def test_every_byte_of_the_sums_counts(folder):
    path = folder / integrity.SUMS
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=integrity.SUMS):
            integrity.sums(folder)
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        integrity.check(folder, "make it")


def test_parts_are_sealed_alone_and_progress_counts_their_bytes(folder):
    seen = []
    integrity.write_checksums(folder, "in", progress=seen.append)
    assert list(integrity.sums(folder)) == ["in/b  c.txt", "in/empty"]
    assert sum(seen) == len("in/b  c.txt")
