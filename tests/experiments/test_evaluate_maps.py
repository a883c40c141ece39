"""Maps that any tool made are evaluated as ours: against what is computed inside."""

import csv
import json
import shutil
from functools import partial
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from scipy import stats

from cradl_jax.errors import InputError
from cradl_jax.evaluation import results
from cradl_jax.names import BASELINE
from experiments.study import data_sets, foreign, preprocessing, stages, stored_maps
from experiments.study.foreign import Source
from tests.helpers.refusals import refusal
from tests.helpers.tiny_study import tiny_config, write_scans

EVALUATED = [
    *(f"healthy-val{number}" for number in range(3)),
    *("lesion-val0", "lesion-test0", "lesion-test1"),
]


def config(neighbours=0):
    """The tiny study's config, with pixels of the scans' voxels: no resampling."""
    config = tiny_config()
    config.data.field_mm = 160.0
    config.score.neighbours = neighbours
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("maps") / "study"
    write_scans(workdir / "data")
    stages.evaluate(config(), workdir, BASELINE)
    stages.write_maps(config(), workdir, BASELINE)
    return workdir


def intensity(path):
    """|z|, clipped, of a scan without its linear trend, as the baseline has it."""
    image = nib.load(path)
    values = image.get_fdata()
    brain = values != 0
    z = np.clip(stats.zscore(values[brain]), -1.5, 1.5)
    plane = np.column_stack([np.argwhere(brain), np.ones(len(z))])
    flat = z - plane @ np.linalg.lstsq(plane, z)[0]
    values[brain] = abs(np.clip(stats.zscore(flat), -1.5, 1.5))
    return values.astype(np.float32), image.affine


@pytest.fixture
def maps(workdir, tmp_path):
    for name in EVALUATED:
        values, affine = intensity(workdir / "data" / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(values, affine), tmp_path / f"{name}_anomaly.nii.gz")
    return tmp_path


@pytest.fixture
def study(workdir, tmp_path_factory):
    """A copy, to add methods to."""
    return shutil.copytree(workdir, tmp_path_factory.mktemp("study") / "study", symlinks=True)


def figures(study, method, score, level):
    """Its metrics by data set, split and name."""
    rows = results.read_csv(study / "seed0" / method / "evaluation" / "results.csv")
    return {
        (row.dataset, row.split, row.metric): row.value
        for row in rows
        if (row.score, row.level) == (score, level)
    }


def thresholds_of(study, method):
    return json.loads((study / "seed0" / method / "thresholds" / "thresholds.json").read_text())


def take_in(
    study, maps, name="numpy", scores=None, postprocess=True, neighbours=0, scan_scores=None
):
    source = Source(maps, scores, scan_scores, postprocess)
    stages.evaluate_foreign(config(neighbours), study, name, source)


def test_maps_of_a_few_lines_of_numpy_give_the_figures_of_the_baseline_inside(study, maps):
    take_in(study, maps)
    found = figures(study, "numpy", "map", "voxel")
    inside = figures(study, "baseline", "intensity", "voxel")
    assert len(found) > 20 and found.keys() == inside.keys()
    for key, value in found.items():
        assert value == pytest.approx(inside[key], abs=1e-6), key
    mine, theirs = (thresholds_of(study, method)["heatmaps"] for method in ("numpy", "baseline"))
    found, expected = mine["map"], theirs["intensity"]
    assert found["pixels"] == pytest.approx(expected["pixels"], rel=1e-6)
    for name, mask in expected["masks"].items():
        assert found["masks"][name]["threshold"] == pytest.approx(mask["threshold"], rel=1e-6)
        masses = pytest.approx(mask["masses"], rel=1e-3, abs=1e-5)
        assert found["masks"][name]["masses"] == masses
    draws = [
        np.load(study / "seed0" / method / "evaluation" / "lesion_test_draws.npz")[f"voxel-{name}"]
        for method, name in (("numpy", "map-auprc"), ("baseline", "intensity-auprc"))
    ]
    np.testing.assert_allclose(*draws, atol=1e-6)


def test_without_scores_a_slice_has_the_maximum_of_its_map_within_the_brain(study, maps):
    take_in(study, maps, postprocess=False)
    store = data_sets.stores(config(), study)["lesion"]
    rows = store.rows("test")
    expected = np.abs(store.images[rows]).max((1, 2))
    found = np.load(study / "seed0" / "numpy" / "evaluation" / "lesion_test_slices.npz")
    np.testing.assert_allclose(found["maximum"], expected, atol=1e-6)
    assert not (found["labels"] != (store.masks[rows].sum((1, 2)) > 5)).any()


def test_our_maps_read_back_give_the_figures_of_their_evaluation(study):
    """Here pixels are voxels: nothing is lost."""
    written = study / "seed0" / BASELINE / "maps"
    about = json.loads((written / "manifest.json").read_text())["settings"]
    assert len(list(written.glob("*/*_anomaly.nii.gz"))) == len(EVALUATED)
    take_in(study, written, "back", written / "slices.csv", postprocess=False)
    slices = figures(study, "back", "given", "slice")
    assert slices and slices == figures(study, BASELINE, about["score"], "slice")
    ours = figures(study, BASELINE, about["heatmap"], "voxel")
    for key, value in figures(study, "back", "map", "voxel").items():
        assert value == pytest.approx(ours[key], abs=1e-6), key


def test_maps_averaged_over_slices_are_so_in_every_stage_and_kept_apart(study, maps):
    run, before = study / "seed0" / BASELINE, figures(study, BASELINE, "intensity", "voxel")
    patches = figures(study, BASELINE, "patch", "voxel")
    for part, stage in {
        "thresholds": stages.find_thresholds,
        "evaluation": stages.evaluate,
        "maps": stages.write_maps,
    }.items():
        message = refusal(stage, config(2), study, BASELINE)
        assert f"{run / part}: was made with different settings (neighbours: expected 2" in message
        shutil.rmtree(run / part)
        stage(config(2), study, BASELINE)
    assert thresholds_of(study, BASELINE)["neighbours"] == 2
    inside = figures(study, BASELINE, "intensity", "voxel")
    assert inside != before and figures(study, BASELINE, "patch", "voxel") == patches
    take_in(study, maps, neighbours=2)
    for key, value in figures(study, "numpy", "map", "voxel").items():
        assert value == pytest.approx(inside[key], abs=1e-6), key
    assert "choose another --name" in refusal(take_in, study, maps)
    take_in(study, run / "maps", "back", run / "maps" / "slices.csv", False, neighbours=2)
    about = json.loads((run / "maps" / "manifest.json").read_text())["settings"]
    ours = figures(study, BASELINE, about["heatmap"], "voxel")
    for key, value in figures(study, "back", "map", "voxel").items():
        assert value == pytest.approx(ours[key], abs=1e-6), key


def test_the_same_maps_are_taken_in_once_and_others_of_that_name_are_refused(study, maps):
    take_in(study, maps)
    heatmaps = study / "seed0" / "numpy" / "heatmaps" / "lesion.npy"
    before = heatmaps.stat().st_mtime_ns
    take_in(study, maps)
    assert heatmaps.stat().st_mtime_ns == before
    assert "choose another --name" in refusal(take_in, study, maps, "numpy", None, False)
    path = maps / "lesion-val0_anomaly.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(2 * image.get_fdata(dtype=np.float32), image.affine), path)
    assert "choose another --name" in refusal(take_in, study, maps)


@pytest.mark.parametrize(
    "name", ["cradl", "VAE", "ceVAE", "baseline", "", "a/b", "..", "x ", "<b>"]
)
def test_names_of_ours_and_those_unfit_for_a_file_are_refused(name):
    message = refusal(foreign.check_name, name)
    assert message.startswith("--name: expected") and "choose another" in message


@pytest.mark.parametrize("name", ["a", "nnU-Net v2", "DRÆM+", "x.1"])
def test_other_names_are_taken(name):
    foreign.check_name(name)


def change(path, function):
    image = nib.load(path)
    data = function(image.get_fdata(dtype=np.float32)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, image.affine), path)


def test_all_maps_that_do_not_fit_are_named_and_nothing_is_stored(study, maps):
    change(maps / "healthy-val0_anomaly.nii.gz", lambda data: data - 1)
    change(maps / "lesion-val0_anomaly.nii.gz", lambda data: data[1:])
    change(maps / "lesion-test1_anomaly.nii.gz", lambda data: data * np.nan)
    with pytest.raises(InputError) as caught:
        take_in(study, maps)
    names = ["healthy-val0", "lesion-val0", "lesion-test1"]
    assert len(caught.value.args) == 3
    for name, fault in zip(names, caught.value.args, strict=True):
        assert fault.startswith(str(maps / name))
    assert not (study / "seed0" / "numpy").exists()
    (maps / "healthy-val0_anomaly.nii.gz").unlink()
    assert "found none; add it" in refusal(take_in, study, maps)
    for name in names:  # mended, they are taken in
        values, affine = intensity(study / "data" / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(values, affine), maps / f"{name}_anomaly.nii.gz")
    take_in(study, maps)


def test_constant_maps_are_named_and_refused_if_all_are(study, maps, capsys):
    change(maps / "healthy-val0_anomaly.nii.gz", np.zeros_like)
    take_in(study, maps)
    assert "constant within the brain: healthy-val0 (1)" in capsys.readouterr().err
    for path in maps.glob("*.nii.gz"):
        change(path, np.ones_like)
    assert "found 6 that are constant" in refusal(take_in, study, maps, "constant")


def test_a_table_that_lacks_slices_is_refused(study, maps):
    written = study / "seed0" / BASELINE / "maps" / "slices.csv"
    with written.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lost = next(row for row in rows if row["scan"] == "lesion-test0")
    path = maps / "scores.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([*(row for row in rows if row is not lost), {**lost, "scan": "unknown"}])
    message = refusal(take_in, study, maps, "scored", path)
    assert f"lesion-test0 that shows brain, found none of {lost['index']} (1)" in message


def test_scores_of_scans_stand_beside_those_that_slices_give(maps, tmp_path_factory):
    """With a healthy test scan to compare with: the second of three validation scans."""
    study = tmp_path_factory.mktemp("scans") / "study"
    write_scans(study / "data")
    listed = study / "data" / "healthy.csv"
    listed.write_text(listed.read_text().replace("healthy-val1,val", "healthy-val1,test"))
    preprocessing.preprocess(config(), study)
    path = maps / "scans.csv"
    scores = {"healthy-val1": 2, "lesion-test0": 3, "lesion-test1": 1}
    lines = [f"{name},{scores.get(name, 0)}" for name in EVALUATED]
    path.write_text("\n".join(["scan,score", *lines, "unknown,7"]) + "\n")
    take_in(study, maps, scan_scores=path)
    found = figures(study, "numpy", "maximum", "scan")
    assert found["lesion", "test", "auroc_given"] == 0.5
    assert found["lesion", "test", "auprc_given"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    evaluated = study / "seed0" / "numpy" / "evaluation"
    draws = np.load(evaluated / "lesion_test_draws.npz")["scan-maximum-auroc_given"]
    assert set(draws[np.isfinite(draws)]) <= {0, 0.5, 1} and len(draws) == 2000
    assert np.load(evaluated / "healthy_test.npz")["scan-maximum"].tolist() == [2]
    assert stored_maps.in_words(study / "seed0" / "numpy").count("scan scores: given") == 1
    path.write_text(path.read_text().replace("lesion-test1,1", "lesion-test1,4"))
    assert "choose another --name" in refusal(partial(take_in, scan_scores=path), study, maps)
    path.write_text("scan,score\nlesion-test1,4\n")
    message = refusal(partial(take_in, scan_scores=path), study, maps, "other")
    assert "scans.csv: expected a score of each validation and test scan" in message


def test_a_scan_that_is_gone_or_changed_is_named(study, maps):
    scan = study / "data" / "lesion-val0.nii.gz"
    change(scan, lambda data: 2 * data)
    assert "lesion-val0.nii.gz: expected the scan as it was sliced" in refusal(take_in, study, maps)
    scan.unlink()
    assert "lesion-val0.nii.gz: expected the scan whose slices" in refusal(take_in, study, maps)


def test_a_scan_that_is_a_link_is_named_after_the_link(study, maps):
    scan = study / "data" / "lesion-val0.nii.gz"
    scan.rename(study / "MD5E-s1.nii.gz")
    scan.symlink_to(study / "MD5E-s1.nii.gz")
    take_in(study, maps)
    assert figures(study, "numpy", "map", "voxel")


def test_an_evaluation_of_maps_on_other_slices_is_refused(study, maps):
    take_in(study, maps)
    store = SimpleNamespace(manifest={"fingerprint": "other"})
    run = study / "seed0" / "numpy"
    message = refusal(stored_maps.read_fingerprint, run, store)
    assert f"remove {run}" in message
