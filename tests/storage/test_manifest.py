import json

import numpy as np
import pytest

from cradl_jax.errors import InputError
from cradl_jax.storage.manifest import fingerprint, read_manifest, write_manifest

SETTINGS = {"seed": 0, "train": {"epochs": 3, "scale": (0.9, 1.2)}}


def test_manifest_accepts_the_same_run_and_names_what_differs(tmp_path):
    write_manifest(tmp_path, SETTINGS, "abc")
    written = (tmp_path / "manifest.json").read_text()
    write_manifest(tmp_path, SETTINGS, "abc")
    assert (tmp_path / "manifest.json").read_text() == written
    with pytest.raises(InputError, match=r"train\.epochs: expected 4, found 3"):
        write_manifest(tmp_path, {**SETTINGS, "train": {"epochs": 4}}, "abc")
    with pytest.raises(InputError, match=r"beta: expected 1, found no such setting"):
        write_manifest(tmp_path, {**SETTINGS, "beta": 1}, "abc")
    with pytest.raises(InputError, match="data or weights"):
        write_manifest(tmp_path, SETTINGS, "xyz")


def test_manifest_records_versions(tmp_path):
    write_manifest(tmp_path, SETTINGS, "abc")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["versions"]["numpy"] == np.__version__
    assert manifest["settings"]["train"]["scale"] == [0.9, 1.2]


@pytest.mark.parametrize("content", [None, "", "{", "\x00"])
def test_damaged_manifest_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_fingerprint_sees_every_bit():
    tree = {"a": np.zeros(3, np.float32), "b": np.ones((2, 2), np.float32)}
    same = {"b": np.ones((2, 2), np.float32), "a": np.zeros(3, np.float32)}
    assert fingerprint(tree) == fingerprint(same)
    other = {**tree, "a": np.array([0, 0, -0.0], np.float32)}
    assert fingerprint(tree) != fingerprint(other)
    reshaped = {**tree, "b": np.ones(4, np.float32)}
    assert fingerprint(tree) != fingerprint(reshaped)
