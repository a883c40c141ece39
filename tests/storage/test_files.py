"""A reader never sees half a file."""

import pytest

from cradl_jax.storage.files import replacing, write_text


def test_file_appears_whole_and_folders_are_made(tmp_path):
    path = tmp_path / "new" / "text.txt"
    with replacing(path) as aside:
        aside.write_text("half")
        assert not path.exists() and aside.suffix == ".txt"
    assert path.read_text() == "half"
    write_text(path, "whole\r\n")
    assert path.read_bytes() == b"whole\r\n"
    assert list(path.parent.iterdir()) == [path]


def test_what_was_there_stays_after_an_error(tmp_path):
    path = tmp_path / "text.txt"
    write_text(path, "before")

    def fail():
        with replacing(path) as aside:
            aside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
