"""A trained run: its folder, its exported file, and what both refuse."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import pytest
from orbax.checkpoint import CheckpointManager

import cradl_jax
from cradl_jax import densities, methods
from cradl_jax.errors import InputError
from cradl_jax.postprocess import postprocess
from cradl_jax.runs import archive, contents
from cradl_jax.storage.manifest import FORMAT, check_manifest
from experiments.study import data_sets
from tests.helpers import commands
from tests.helpers.exported import packed, unpacked, with_checksum
from tests.helpers.tiny_study import tiny_config

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "new" / "cradl.safetensors"
    commands.run("export", f"--run={folder}", f"--out={path}").check_returncode()
    return path


@pytest.fixture(scope="module")
def scan(study):
    return study / "data" / "lesion-test1.nii.gz"


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "run"))


def of_archive(change):
    """A change of an exported run's plain values alone, with a checksum that fits."""

    def changed(about, tensors):
        change(about)
        return with_checksum(about, tensors), tensors

    return changed


def test_slice_scores_are_the_densities_of_the_representations(study, folder):
    run = cradl_jax.load_run(folder).using("gmm1", "gmm1")
    store = data_sets.stores(tiny_config(), study)["lesion"]
    images, brains = np.array(store.images[:5]), np.array(store.brains[:5])
    found = run.score(images, brains)
    encode = methods.encoder_of(contents.network(run.contents.manifest["settings"]))
    variables, density = run.contents.variables, run.contents.densities["gmm1"]

    def nll(x):
        return -densities.log_prob(density, encode(variables, x)).sum()

    z = encode(variables, images)
    np.testing.assert_allclose(found.scores, -densities.log_prob(density, z), rtol=1e-5)
    expected = postprocess(np.abs(jax.grad(nll)(images)), brains)
    np.testing.assert_allclose(found.heatmaps, expected, rtol=1e-3, atol=1e-5)
    one = run.score(images[2])
    assert one.scores.shape == (1,) and one.heatmaps.shape == (1, 32, 32)
    np.testing.assert_array_equal(run.score(images[:1]).scores, found.scores[:1])


def test_a_run_with_a_flow_is_read_without_distrax(folder, scan, monkeypatch):
    monkeypatch.setitem(sys.modules, "distrax", None)
    jax.clear_caches()
    run = cradl_jax.load_run(folder)
    assert np.isfinite(run.using("gmm1", "dense").predict(scan).scores).all()
    with pytest.raises(InputError, match=r"distrax: expected .* found .* leave the flow out"):
        run.using("flow", "flow").predict(scan)


def test_dense_scores_of_slices_are_those_of_their_scan(study, folder, scan):
    run = cradl_jax.load_run(folder).using("dense", "dense")
    store = data_sets.stores(tiny_config(), study)["lesion"]
    rows = np.flatnonzero((store.subjects == "lesion-test1") & store.brains.any((1, 2)))
    images, brains = np.array(store.images[rows]), np.array(store.brains[rows])
    found = run.score(images, brains, store.position[rows])
    np.testing.assert_allclose(found.scores, run.predict(scan).scores, rtol=1e-4)
    np.testing.assert_array_equal(found.scores, found.heatmaps.max((1, 2)))
    message = r"positions: expected the heights of \d+ slices within the brain, from 0 to 1, found"
    beyond, unknown = np.linspace(0, 1.5, len(images)), np.full(len(images), np.nan)
    for positions, found in (
        (None, "none"),
        ([0.5], "1"),
        (beyond, r"0 to 1\.5"),
        (unknown, "nan to nan"),
    ):
        with pytest.raises(InputError, match=f"{message} {found};"):
            run.score(images, brains, positions)
    with pytest.raises(InputError, match=r"brains: expected the shape of images, .* found"):
        run.score(images, brains[:1], np.full(len(images), 0.5))


def test_slices_of_another_kind_are_refused(folder):
    run = cradl_jax.load_run(folder)
    with pytest.raises(InputError, match=r"shape \(N, 32, 32\), found \(2, 16, 16\)"):
        run.score(np.zeros((2, 16, 16)))
    with pytest.raises(InputError, match=r"in \[-1\.5, 1\.5\], found values from 0 to 700"):
        run.score(np.full((1, 32, 32), 700.0) * np.eye(32))
    with pytest.raises(InputError, match="found values from nan"):
        run.score(np.full((1, 32, 32), np.nan))


def test_a_finding_lies_on_the_scan_and_is_what_is_saved(folder, scan, tmp_path):
    found = cradl_jax.load_run(str(folder)).predict(str(scan))
    image = nib.load(scan)
    assert found.anomaly_map.shape == found.mask.shape == image.shape
    assert found.anomaly_map.dtype == np.float32 and found.mask.dtype == bool
    summary = found.save(tmp_path)
    saved = nib.load(tmp_path / "lesion-test1_anomaly.nii.gz")
    np.testing.assert_array_equal(np.asarray(saved.dataobj), found.anomaly_map)
    mask = nib.load(tmp_path / "lesion-test1_anomaly_mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), found.mask)
    assert summary["slices"] == len(found.scores) and summary["scan"] == "lesion-test1"


def test_exported_run_says_the_same_to_the_bit(folder, exported, scan):
    runs = [cradl_jax.load_run(path) for path in (folder, exported)]
    assert runs[0].about == runs[1].about
    for score in runs[0].scores:
        expected, found = (run.using(score, score, 0.01).predict(scan) for run in runs)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
        np.testing.assert_array_equal(found.mask, expected.mask)


def test_export_is_small_and_the_same_every_time(folder, exported, tmp_path):
    about, tensors = unpacked(exported)
    run = cradl_jax.load_run(folder).contents
    parts = run.variables, run.densities, run.of_features
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(parts))
    assert sum(array.nbytes for array in tensors.values()) == weights
    stored = exported.stat().st_size - len(json.dumps(json.dumps(about)))
    assert weights <= stored < weights + 16000, "the weights alone, without the optimizer's state"
    card = cradl_jax.load_run(exported).contents.card
    assert card == exported.with_suffix(".md").read_text(encoding="utf-8")
    for source in (folder, exported):
        content = cradl_jax.load_run(source).contents._replace(card=card)
        archive.write(tmp_path / "again.safetensors", content)
        assert (tmp_path / "again.safetensors").read_bytes() == exported.read_bytes()


def places(values, path=()):
    """Where the plain values of nested ones lie."""
    if not isinstance(values, dict | list) or not values:
        return [path]
    inner = values.items() if isinstance(values, dict) else enumerate(values)
    return [place for name, value in inner for place in places(value, (*path, name))]


def test_every_field_of_an_exported_run_is_hashed(exported, tmp_path):
    """Every field but long lists' further items, changed to another number or text."""
    content, tensors = unpacked(exported)
    chosen = [p for p in places(content) if not any(isinstance(i, int) and i > 1 for i in p)]
    assert {("thresholds", "slicing", "field_mm"), ("chosen", "score")} <= set(chosen)
    for *path, last in chosen:
        changed = json.loads(json.dumps(content))
        inner = changed
        for name in path:
            inner = inner[name]
        inner[last] = "other" if inner[last] != "other" else "another"
        damaged = packed(tmp_path / "run.safetensors", changed, tensors)
        with pytest.raises(InputError, match=r"other than those that were exp|expected format"):
            cradl_jax.load_run(damaged)


PARAMETER = "densities/gmm1/mean"


def swapped(about, tensors):
    """A parameter of a density in place of one of the network."""
    other = {**tensors, next(n for n in tensors if n.startswith("network/")): tensors[PARAMETER]}
    return with_checksum(about, other), other


def renamed(about, tensors):
    other = {name.replace("densities/gmm1/", "../"): array for name, array in tensors.items()}
    return with_checksum(about, other), other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about, tensors: (about, tensors | {"../evil.txt": np.zeros(1, "f4")}), "other tha"),
        (renamed, "the tensors"),
        (swapped, "weights of another network"),
        (
            lambda about, tensors: (about, tensors | {PARAMETER: tensors[PARAMETER] + 1}),
            "other than those",
        ),
        (lambda about, tensors: ("{", tensors), "expected format"),
        (of_archive(lambda c: c.update(format=99)), f"expected format {FORMAT}.*found 99"),
        (of_archive(lambda c: c.update(chosen={"score": "../x", "heatmap": "gmm1"})), "score: exp"),
        (of_archive(lambda c: c["densities"].update(gmm1="RealNVP")), "run written by"),
        (of_archive(lambda c: c.pop("thresholds")), "run written by"),
        (of_archive(lambda c: c["manifest"]["settings"].update(method="gan")), "found 'gan'"),
    ],
)
def test_hostile_or_damaged_file_is_refused(exported, tmp_path, change, message):
    path = packed(tmp_path / "run.safetensors", *change(*unpacked(exported)))
    with pytest.raises(InputError, match=message):
        cradl_jax.load_run(path)
    assert [f.name for f in tmp_path.iterdir()] == ["run.safetensors"], "nothing is unpacked"


def test_other_files_are_refused(exported, tmp_path):
    whole = exported.read_bytes()
    for name, content in (
        ("text", b"no tensors"),
        ("zip", b"PK\5\6" + bytes(18)),
        ("empty", b""),
        ("cut", whole[:-500]),
        ("longer", whole + bytes(8)),
    ):
        (tmp_path / f"{name}.safetensors").write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.safetensors: expected a run written by"):
            cradl_jax.load_run(tmp_path / f"{name}.safetensors")


def test_run_of_another_version_is_refused(copied):
    manifest = copied / "manifest.json"
    content = json.loads(manifest.read_text())
    content["format"], content["versions"]["cradl_jax"] = FORMAT + 1, "9.9"
    manifest.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"found {FORMAT + 1} of cradl_jax 9\.9"):
        cradl_jax.load_run(copied)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("manifest.json", "expected the manifest of a finished run"),
        ("checkpoints", "train the run first"),
        ("densities/gmm1.npz", r"gmm1\.npz: expected a density"),
        ("densities/manifest.json", "densities.manifest.json"),
        ("thresholds/thresholds.json", r"run python -m experiments\.thresholds"),
    ],
)
def test_incomplete_run_is_refused(copied, missing, message):
    path = copied / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=message):
        cradl_jax.load_run(copied)


def test_study_and_nothing_are_not_a_run(study, folder, tmp_path):
    with pytest.raises(InputError, match=f"that of a study; name one of .*{folder}"):
        cradl_jax.load_run(study)
    with pytest.raises(InputError, match="found nothing"):
        cradl_jax.load_run(tmp_path / "nowhere")


def test_run_that_cannot_be_written_to_is_read(folder, scan):
    """As on a shared disk: nothing below the run changes."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    cradl_jax.load_run(folder).predict(scan)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiments.predict", "--run=a", "--scan=b", "--nope=1"], "nope"),
        (["experiments.export", "--run=nowhere", "--out=."], "name of a file, found a folder"),
        (["experiments.phantom", "--config=configs/nowhere.py"], "configs/nowhere.py"),
        (["experiments.phantom", "--config=configs/phantom.py", "--config.nope=1"], "found 'nope'"),
    ],
)
def test_mistakes_end_in_one_message_and_status_2(arguments, message):
    result = command(*arguments)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr and "Traceback" not in result.stderr


def test_help_names_the_flags_and_is_no_failure():
    result = command("experiments.phantom", "--help")
    assert result.returncode == 0
    assert "--config" in result.stdout and "Write the embedded phantom" in result.stdout


@pytest.mark.parametrize("fault", [MemoryError, jax.errors.JaxRuntimeError])
def test_what_the_machine_lacks_is_not_told_as_damage(folder, monkeypatch, fault):
    def fails(*_, **__):
        raise fault("RESOURCE_EXHAUSTED: Out of memory")

    assert cradl_jax.load_run(folder)
    monkeypatch.setattr(CheckpointManager, "restore", fails)
    with pytest.raises(fault, match="Out of memory"):
        cradl_jax.load_run(folder)


def test_a_run_of_other_settings_is_not_to_be_removed(folder):
    settings = json.loads((folder / "manifest.json").read_text())["settings"]
    with pytest.raises(InputError, match="seed: expected 7, found 0") as refusal:
        check_manifest(folder, settings | {"seed": 7})
    assert "choose another folder" in str(refusal.value) and "remove" not in str(refusal.value)
