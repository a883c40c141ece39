"""Nothing in a run, an exported run, a list or a header executes or writes beside the output."""

import gc
import io
import json
import os
import shutil
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import cradl_jax
from cradl_jax.data.scans.volumes import read_volume
from cradl_jax.data.slices.store import open_store
from cradl_jax.errors import LONGEST, InputError
from cradl_jax.prediction import inputs
from cradl_jax.runs import archive
from cradl_jax.runs.densities import read_density
from cradl_jax.storage import reading
from tests.helpers import corpus
from tests.helpers.exported import packed, raw, unpacked, with_checksum
from tests.helpers.refusals import put, refusal
from tests.helpers.scans import brain, write

SCRIPT = "<script>alert(1)<img src=x onerror=alert(2)>"


class Attack:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture(scope="module")
def run(folder):
    return cradl_jax.load_run(folder)


@pytest.fixture(scope="module")
def members(run, tmp_path_factory):
    """The plain values and tensors of the exported run."""
    path = tmp_path_factory.mktemp("exported") / "run.safetensors"
    archive.write(path, run.contents)
    return unpacked(path)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "executed"


def objects(marker: Path) -> np.ndarray:
    array = np.empty(1, object)
    array[0] = Attack(marker)
    return array


def test_the_attack_works_where_pickle_is_allowed(marker, tmp_path):
    np.save(tmp_path / "x.npy", objects(marker), allow_pickle=True)
    np.load(tmp_path / "x.npy", allow_pickle=True)
    assert marker.exists()


def test_pickled_arrays_are_not_unpickled(study, marker, tmp_path):
    np.savez(tmp_path / "x.npz", kind="GMM", mean=objects(marker), scale=objects(marker))
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as packed:
        packed.writestr("mean.npy", objects(marker).dumps())
    for name in ("x.npz", "raw.npz"):
        assert name in refusal(read_density, tmp_path / name)
        assert name in refusal(reading.read_arrays, tmp_path / name, "scores", "score again")
    for name in ("images", "brains", "masks"):
        store = Path(shutil.copytree(study / "slices" / "lesion", tmp_path / name))
        np.save(store / f"{name}.npy", objects(marker), allow_pickle=True)
        assert str(store) in refusal(open_store, store)
    assert not marker.exists()


def test_a_pickle_in_a_header_is_not_unpickled(marker, tmp_path):
    header = nib.Nifti1Header()
    header.extensions.append(nib.nifti1.Nifti1Extension("pypickle", objects(marker).dumps()))
    (tmp_path / "scan.nii").write_bytes(corpus.nifti(header=header))
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii").data, corpus.plain())
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of orbax
def test_no_file_of_a_run_is_executed(folder, marker, tmp_path):
    """Each is replaced by a pickle; what loads all the same is a file that is not read."""
    run, attack = tmp_path / "run", objects(marker).dumps()
    shutil.copytree(folder, run)
    names = sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file())
    for name in names:
        content = (run / name).read_bytes()
        (run / name).write_bytes(attack)
        try:
            cradl_jax.load_run(run)
        except InputError as fault:
            assert len(str(fault)) <= LONGEST
        (run / name).write_bytes(content)
    assert not marker.exists() and len(names) > 10
    assert cradl_jax.load_run(run).scores == ["flow", "gmm1", "dense"]
    gc.collect()  # what orbax left behind warns here, not in another test


def zipped(path: Path, members: dict) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        for name, content in members.items():
            target.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../escaped", "/tmp/cradl_escaped", "a/../../escaped", "C:\\x"])
def test_tensors_with_paths_are_refused(members, tmp_path, name):
    about, tensors = members
    tensors = tensors | {name: np.zeros(1, np.float32)}
    path = packed(tmp_path / "run.safetensors", with_checksum(about, tensors), tensors)
    refusal(cradl_jax.load_run, path)
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]
    assert not Path("/tmp/cradl_escaped").exists()


def test_sizes_that_lie_take_no_memory(members, tmp_path):
    """Headers that say to be, or that tensors are, of exabytes, and tensors that overlap."""
    about, _ = members
    path, text = tmp_path / "lie.safetensors", json.dumps(json.dumps(about)).encode()
    for tensors in (
        b'"x":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,399999999996]}',
        b'"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}',
        b'"x":{"dtype":"F32","shape":[18446744073709551615,9],"data_offsets":[0,4]}',
        b'"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}',
        b'"x":{"dtype":"O","shape":[1],"data_offsets":[0,4]}',
        b'"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"y":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}',
    ):
        for metadata in (b'"__metadata__":{"run":%s},' % text, b""):
            header = b"{" + metadata + tensors + b"}"
            for length in (len(header), 2**62, 2**27, 0):
                for data in (b"", bytes(4), bytes(64)):
                    refusal(cradl_jax.load_run, raw(path, header, data, length))
    for header in (b"{" * 1000, b"[]", b"{}", b'{"__metadata__":{"run":3}}', b"\xff" * 50):
        refusal(cradl_jax.load_run, raw(path, header))


def test_arrays_that_lie_take_no_memory(tmp_path):
    def lying(shape):
        head = io.BytesIO()
        descr = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(head, descr)
        return head.getvalue() + bytes(64)

    for shape in ((10**14,), (10**6, 10**6, 10**6), (-5,), (2**63,)):
        path = zipped(tmp_path / "x.npz", {"mean.npy": lying(shape)})
        assert "x.npz" in refusal(read_density, path)
    compressed = tmp_path / "compressed.npz"
    np.savez_compressed(compressed, mean=np.zeros(10**6, np.float32))
    assert "compressed members" in refusal(read_density, compressed)


NESTED = b"[" * 100_000 + b"]" * 100_000


def test_json_nested_too_deeply(folder, study, tmp_path):
    path = tmp_path / "run.safetensors"
    metadata = {"__metadata__": {"run": NESTED.decode()}}
    refusal(cradl_jax.load_run, raw(path, json.dumps(metadata).encode()))
    refusal(cradl_jax.load_run, raw(path, b'{"__metadata__":' + NESTED + b"}"))
    for name in ("manifest.json", "densities/manifest.json", "thresholds/thresholds.json"):
        copy = Path(shutil.copytree(folder, tmp_path / name.replace("/", "_")))
        (copy / name).write_bytes(NESTED)
        assert str(copy) in refusal(cradl_jax.load_run, copy)
    store = Path(shutil.copytree(study / "slices" / "lesion", tmp_path / "store"))
    (store / "scans.json").write_bytes(NESTED)
    refusal(open_store, store)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("chosen", None),
        ("chosen", {"score": ["gmm1"], "heatmap": "gmm1"}),
        ("chosen.heatmap", "../../x"),
        ("densities", []),
        ("densities.gmm1", "os.system"),
        ("densities.gmm1", ["GMM"]),
        ("manifest", []),
        ("manifest", None),
        ("manifest.settings", None),
        ("manifest.settings.size", 2**30),
        ("manifest.settings.model.features", 10**9),
        ("manifest.settings.loss", {}),
        ("format", "1"),
        ("fingerprint", None),
        ("thresholds", []),
        ("thresholds.slicing.size", 64),
        ("thresholds.slicing.field_mm", -3),
        ("versions", "new"),
    ],
)
def test_fields_of_an_exported_run(members, tmp_path, path, value):
    about, tensors = members
    about = with_checksum(put(about, path, value), tensors)
    spoiled = packed(tmp_path / "run.safetensors", about, tensors)
    try:
        cradl_jax.load_run(spoiled)
    except InputError as fault:
        assert "run.safetensors" in str(fault) or str(fault).startswith(
            ("score:", "heatmap:", "the run's manifest")
        )
    else:
        assert path == "versions", "which nothing rests on"


class Tags(HTMLParser):
    """The tags, and attributes with scripts, of a page and of the pages in its frames."""

    def __init__(self):
        super().__init__()
        self.scripts, self.attributes, self.inside = [], [], False

    def handle_starttag(self, tag, attributes):
        self.inside = tag == "script"
        for name, value in attributes:
            if name.startswith("on") or "javascript:" in (value or ""):
                self.attributes.append((name, value))
            if name == "srcdoc":
                self.feed_frame(value)

    def feed_frame(self, page):
        inner = Tags()
        inner.feed(page)
        self.scripts += inner.scripts
        self.attributes += inner.attributes

    def handle_data(self, data):
        if self.inside:
            self.scripts.append(data)

    def handle_endtag(self, tag):
        self.inside = False


def test_markup_in_names_and_headers_is_text(run, tmp_path):
    """In the folder, the scan's name and every text of the header."""
    place = tmp_path / SCRIPT
    place.mkdir()
    image = nib.Nifti1Image(brain((30, 36, 28)), np.diag([5.0, 5, 5, 1]))
    for name in ("descrip", "aux_file", "intent_name", "db_name"):
        size = image.header.template_dtype[name].itemsize
        image.header[name] = SCRIPT.encode()[:size]
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", SCRIPT.encode()))
    nib.save(image, place / "sc&'an.nii")
    found = run.predict(place / "sc&'an.nii")
    found.save(tmp_path / "out")
    page = (tmp_path / "out" / "sc&'an.html").read_text()
    assert SCRIPT not in page and "&lt;script&gt;alert(1)" in page
    tags = Tags()
    tags.feed(page)
    assert tags.scripts and not any("alert" in script for script in tags.scripts)
    assert not any("alert" in value for _, value in tags.attributes)
    written = nib.load(tmp_path / "out" / "sc&'an_anomaly.nii.gz")
    assert SCRIPT.encode()[:16] not in bytes(written.header.binaryblock)
    assert not written.header.extensions


def tree(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if "out" not in path.relative_to(root).parts[:1]}


@pytest.mark.parametrize("name", ["../x", "/tmp/cradl_x", "a/b", "..", ".x", "x\ny", "x\0", "a\\b"])
def test_names_of_scans_do_not_lead_outside(run, tmp_path, name):
    scan = write(tmp_path / "scan.nii", brain((30, 36, 28)), np.diag([5.0, 5, 5, 1]))
    before = tree(tmp_path)
    assert "fit for a file" in refusal(run.predict, scan, name)
    (tmp_path / "list.csv").write_text(f'image,subject\nscan.nii,"{name}"\n')
    assert "fit for a file" in refusal(inputs.find_scans, tmp_path / "list.csv")
    assert tree(tmp_path) == before | {tmp_path / "list.csv"}
