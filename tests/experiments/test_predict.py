"""A scan goes in, an anomaly map comes out: on a tiny study, against its own evaluation."""

import csv
import json
import re
from dataclasses import replace

import jax
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cradl_jax.cli import predict
from cradl_jax.data.scans.volumes import read_volume
from cradl_jax.data.slices.native import slice_centers_mm
from cradl_jax.data.slices.preprocess import normalized_slices, slice_geometry
from cradl_jax.errors import InputError
from cradl_jax.evaluation import results
from cradl_jax.postprocess import over_neighbours, postprocess
from cradl_jax.prediction.scan import predict_volume, slice_scorer
from cradl_jax.runs import load_run
from cradl_jax.runs.folder import chosen_score
from cradl_jax.scoring import Batch, Scored, baseline, post_processed
from experiments import thresholds
from experiments.study import data_sets, evaluation, runs
from tests.helpers import commands
from tests.helpers.scans import write
from tests.helpers.tiny_study import tiny_config

OBLIQUE = np.array([[0, -3.9, 0.4, 60], [0.1, 0.5, 3.95, -80], [-4, 0, 0, 70], [0, 0, 0, 1.0]])
SHAPE = (30, 36, 28)


@pytest.fixture(scope="module")
def study(study):
    evaluation.evaluate(tiny_config(), study, "cradl")
    return study


@pytest.fixture(scope="module")
def evaluated(study):
    """What the evaluation's own path says of slices of a store: NLL and its gradient by density."""
    config = tiny_config()
    healthy = data_sets.stores(config, study)["healthy"]
    (scorer, params), _ = runs.scorers(config, study, "cradl", healthy)
    scorer = post_processed(scorer)

    def of_rows(store, rows):
        arrays = Batch(store.images, store.brains, store.position)
        batches = runs.in_batches(config, scorer, params, arrays, rows, "score")
        return jax.tree.map(lambda *x: np.concatenate(x), *batches)

    return of_rows


@pytest.fixture(scope="module")
def run(study):
    return load_run(study / "seed0/cradl").using("flow", "gmm1")


def lesion(study):
    return study / "data" / "lesion-test1.nii.gz"


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def content_of(study):
    return json.loads((study / "seed0/cradl/thresholds/thresholds.json").read_text())


def test_a_scan_gets_the_scores_of_its_evaluation(study, run, evaluated, tmp_path):
    run.predict(lesion(study), "it").save(tmp_path)
    store = data_sets.stores(tiny_config(), study)["lesion"]
    rows = np.flatnonzero(store.subjects == "lesion-test1")
    scores, maps = evaluated(store, rows)
    found = np.array([float(row["score"]) for row in table(tmp_path / "it_slices.csv")])
    np.testing.assert_allclose(found, scores["flow"], rtol=1e-5)
    kept = np.load(study / "seed0/cradl/evaluation/lesion_test_slices.npz")["flow"]
    np.testing.assert_allclose(found, kept[-len(rows) :], rtol=1e-5)
    dense = np.load(study / "seed0/cradl/evaluation/lesion_test_slices.npz")["dense"]
    scored = run.using("dense", "dense").predict(lesion(study))
    np.testing.assert_allclose(scored.scores, dense[-len(rows) :], rtol=1e-4)
    middle = len(rows) // 2
    native = nib.load(tmp_path / "it_anomaly.nii.gz").get_fdata()
    assert native.max() <= maps["gmm1"].max() * (1 + 1e-5)
    assert np.isclose(native[..., middle + 3].max(), maps["gmm1"][middle].max(), rtol=0.5)
    masks = content_of(study)["heatmaps"]["gmm1"]["masks"]
    for name, mask in masks.items():
        run.using(mask=name, smallest_ml=0).predict(lesion(study), name).save(tmp_path)
        written = nib.load(tmp_path / f"{name}_anomaly_mask.nii.gz")
        expected = native.astype(np.float32) > mask["threshold"]
        assert (np.asarray(written.dataobj) == expected).all()


def test_a_scan_with_the_training_scans_field_of_view_gets_the_slices_of_the_store(study, run):
    store = data_sets.stores(tiny_config(), study)["lesion"]
    assert run.slicing["field_mm"] == max(SHAPE[:2]) * 5
    volume = read_volume(lesion(study))
    slices, *_ = normalized_slices(volume.data, None, volume.spacing_mm, **run.slicing)
    of_scan = store.subjects == "lesion-test1"
    np.testing.assert_array_equal(slices.images, store.images[of_scan])
    np.testing.assert_array_equal(slices.brains, store.brains[of_scan])


PADDING = st.tuples(st.integers(4, 60), st.integers(4, 60))


@settings(
    deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    plane=st.tuples(PADDING, PADDING),
    height=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_a_larger_field_of_view_changes_no_score(study, run, plane, height):
    """The brain lies anywhere in it."""
    volume = read_volume(lesion(study))
    expected = predict_volume(run.score_slices, volume, run.slicing)
    padding = (*plane, height)
    inside = tuple(slice(low, low + n) for (low, _), n in zip(padding, SHAPE, strict=True))
    wide = replace(volume, data=np.pad(volume.data, padding))
    found = predict_volume(run.score_slices, wide, run.slicing)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)
    np.testing.assert_allclose(found.position, expected.position, atol=1e-6)
    shift = volume.affine[:3, :3] @ [low for low, _ in padding]
    np.testing.assert_allclose(found.centers_mm, expected.centers_mm + shift, atol=1e-6)
    top = expected.maps.max()
    np.testing.assert_allclose(found.maps, expected.maps, rtol=1e-3, atol=1e-4 * top)
    np.testing.assert_allclose(
        found.anomaly_map[inside], expected.anomaly_map, rtol=1e-3, atol=1e-4 * top
    )
    assert np.count_nonzero(found.anomaly_map) == np.count_nonzero(found.anomaly_map[inside])


def test_a_scan_named_as_of_another_contrast_is_refused(study, run, tmp_path):
    """Before it is read; the run's own contrast, T2w, and a name that states none pass."""
    data = np.asarray(nib.load(lesion(study)).dataobj, np.float32)
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    for name, found in (
        ("sub-1_T1w", "T1w"),
        ("sub-1_FLAIR", "FLAIR"),
        ("case-t1n", "T1w"),
        ("case_t1ce", "contrast-enhanced T1w"),
    ):
        scan = write(tmp_path / f"{name}.nii.gz", data, affine)
        with pytest.raises(InputError) as caught:
            run.predict(scan, "it")
        message = str(caught.value)
        assert message.startswith(f"{scan}: expected a scan of the contrast T2w, on which")
        assert f"found a name that states {found}; predict" in message
        own = f"with a run trained on {found} (config.data.contrast)"
        assert (own in message) == (found != "contrast-enhanced T1w")
    expected = run.predict(lesion(study)).scores
    same = write(tmp_path / "sub-1_T2w.nii.gz", data, affine)
    np.testing.assert_array_equal(run.predict(same).scores, expected)


def test_a_run_keeps_the_contrast_that_it_was_trained_on(study, run, tmp_path):
    manifest = run.contents.manifest
    assert manifest["settings"]["contrast"] == "T2w"
    kept = manifest | {"settings": manifest["settings"] | {"contrast": "T1w"}}
    of_t1 = replace(run, contents=run.contents._replace(manifest=kept))
    scan = write(tmp_path / "a-T2.nii.gz", np.asarray(nib.load(lesion(study)).dataobj, np.float32))
    with pytest.raises(InputError, match=r"contrast T1w, .* found a name that states T2w"):
        of_t1.predict(scan)
    config = tiny_config()
    config.data.contrast = "FLAIR"
    healthy = data_sets.stores(config, study)["healthy"]
    with pytest.raises(InputError, match="contrast: expected 'FLAIR', found 'T2w'"):
        runs.check(config, study, "cradl", healthy)


def test_what_is_written_of_a_tall_scan_speaks_of_its_brain_alone(study, run, tmp_path):
    data = np.asarray(nib.load(lesion(study)).dataobj, np.float32)
    tall = np.pad(data, ((0, 0), (0, 0), (15, 40)))
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    affine[2, 3] = -15 * 5
    scan = write(tmp_path / "tall.nii.gz", tall, affine)
    out = run.predict(scan).save(tmp_path / "out")
    whole = run.predict(lesion(study), "it").save(tmp_path / "out")
    rows, expected = (table(tmp_path / "out" / f"{name}_slices.csv") for name in ("tall", "it"))
    assert len(rows) == len(expected) == out["slices"] == whole["slices"] == 22
    for row, other in zip(rows, expected, strict=True):
        assert int(row["index"]) == int(other["index"]) + 15
        for name in ("position_mm", "height_in_brain", "above_threshold"):
            assert float(row[name]) == float(other[name])
        assert np.isclose(float(row["score"]), float(other["score"]), rtol=1e-4)
    assert out["slices_above"] == whole["slices_above"]
    assert "of 22" in (tmp_path / "out" / "tall.html").read_text()


def test_a_scan_whose_slices_show_no_brain_is_refused(study, run):
    volume = read_volume(lesion(study))
    speck = replace(volume, data=np.zeros_like(volume.data), spacing_mm=(1.0, 1.0, 1.0))
    speck.data[4:6, 4:6, 3] = 1, 2
    with pytest.raises(InputError, match=r"a brain that fills a pixel of 5\.62 mm, found none"):
        predict_volume(run.score_slices, speck, run.slicing)


def oblique(study, path):
    """The brain of a scan with its axes permuted and flipped, as another scanner writes it."""
    data = np.asarray(nib.load(lesion(study)).dataobj, np.float32)
    return write(path, np.flip(data.transpose(2, 0, 1), 0).copy(), OBLIQUE)


def test_maps_lie_on_an_oblique_scan(study, run, tmp_path):
    scan = oblique(study, tmp_path / "scan.nii.gz")
    run.predict(scan, "it").save(tmp_path / "out")
    stored, image = nib.load(scan), nib.load(tmp_path / "out" / "it_anomaly.nii.gz")
    mask = nib.load(tmp_path / "out" / "it_anomaly_mask.nii.gz")
    for written, kind in ((image, np.float32), (mask, np.uint8)):
        assert written.shape == stored.shape and written.get_data_dtype() == kind
        np.testing.assert_array_equal(written.affine, stored.affine)
    heat, brain = image.get_fdata(), stored.get_fdata() != 0
    assert (heat >= 0).all() and heat.any() and not heat[~brain].any()
    assert not heat[[0, 1, 2, -3, -2, -1]].any(), "the end slices are left out"
    rows = table(tmp_path / "out" / "it_slices.csv")
    depth = stored.shape[0]
    assert [int(row["index"]) for row in rows] == list(range(depth - 4, 2, -1))
    volume = read_volume(scan)
    geometry = slice_geometry(volume.data != 0, volume.spacing_mm, **run.slicing)
    heights = slice_centers_mm(geometry, volume.affine)[:, 2]
    assert np.allclose([float(row["position_mm"]) for row in rows], heights, atol=1e-3)
    assert (np.diff(heights) > 0).all()
    page = (tmp_path / "out" / "it.html").read_text()
    assert "For research only. Not a medical device." in page and "scan.nii.gz" in page


def test_what_is_written_says_the_same_everywhere(study, run, tmp_path):
    scan = lesion(study)
    out = run.predict(scan, "it").save(tmp_path)
    assert json.loads((tmp_path / "it_summary.json").read_text()) == out
    rows = table(tmp_path / "it_slices.csv")
    scores = np.array([float(row["score"]) for row in rows])
    threshold = out["thresholds"]["slice"]
    assert threshold == content_of(study)["slices"]["flow"]["thresholds"]["0.05"]
    above = [int(row["above_threshold"]) for row in rows]
    assert above == (scores > threshold).astype(int).tolist()
    assert sum(above) == out["slices_above"] and len(rows) == out["slices"]
    found = {name: value["value"] for name, value in out["scan_scores"].items()}
    assert np.isclose(found["max"], scores.max()) and np.isclose(found["mean"], scores.mean())
    assert np.isclose(found["p95"], np.percentile(scores, 95))
    assert np.isclose(found["share_above_0.05"], np.mean(above))
    assert all(0 <= value["percentile"] <= 100 for value in out["scan_scores"].values())
    assert out["notice"] == "For research only. Not a medical device."
    assert out["score"] == "flow" and out["heatmap"] == "gmm1" and len(out["model"]) == 64


def test_findings_are_written_alike_everywhere(study, run, tmp_path):
    """In the volume of their numbers, the table, the summary, the page and in Python."""
    scan = oblique(study, tmp_path / "scan.nii.gz")
    result = run.using(heatmap="dense", mask="0.05").predict(scan, "it")
    out = result.save(tmp_path)
    rows = table(tmp_path / "it_findings.csv")
    labels = nib.load(tmp_path / "it_findings.nii.gz")
    numbers = np.asarray(labels.dataobj)
    heat = np.asarray(nib.load(tmp_path / "it_anomaly.nii.gz").dataobj)
    brain = nib.load(scan).get_fdata() != 0
    assert labels.get_data_dtype() == np.int32 and len(rows) == len(result.findings) > 0
    assert ((numbers > 0) == result.mask).all() and not numbers[~brain].any()
    threshold = out["thresholds"]["voxel"]
    ml = np.prod(np.linalg.norm(OBLIQUE[:3, :3], axis=0)) / 1000
    for row, finding, told in zip(rows, result.findings, out["findings"], strict=True):
        inside = numbers == finding.number
        assert int(row["number"]) == told["number"] == finding.number
        assert finding.volume_ml == pytest.approx(inside.sum() * ml, rel=1e-5)
        assert float(row["volume_ml"]) == told["volume_ml"] == finding.volume_ml >= 0.1
        assert finding.peak == pytest.approx(heat[inside].max())
        assert finding.mean == pytest.approx(heat[inside].mean(), rel=1e-5)
        assert finding.mass == pytest.approx((heat[inside] - threshold).sum() * ml, rel=1e-4)
        places = np.argwhere(inside)
        center = nib.affines.apply_affine(OBLIQUE, places.mean(0))
        written = [float(row[f"center_{axis}_mm"]) for axis in "xyz"]
        np.testing.assert_allclose(written, center, atol=1e-3)
        peak = np.linalg.inv(OBLIQUE) @ [*finding.peak_mm, 1]
        assert heat[tuple(np.rint(peak[:3]).astype(int))] == pytest.approx(finding.peak)
    masses = content_of(study)["heatmaps"]["dense"]["masks"]["0.05"]["masses"]
    n = out["healthy_validation"]["scans"]
    rates = [sum(m >= finding.mass for m in masses) / n for finding in result.findings]
    assert [finding.per_healthy_scan for finding in result.findings] == pytest.approx(rates)
    assert out["anomalous"] == result.anomalous == any(rate <= 0.05 for rate in rates)
    assert out["milliliters_above"] == pytest.approx(result.mask.sum() * ml, rel=1e-5)
    page = (tmp_path / "it.html").read_text()
    assert page.count("&lt;button") == len(rows)
    none = run.using(heatmap="dense", smallest_ml=1e6).predict(scan, "none")
    assert not none.anomalous and not none.mask.any()
    none.save(tmp_path)
    assert table(tmp_path / "none_findings.csv") == []
    header = (tmp_path / "none_findings.csv").read_text()
    assert header.startswith("number,volume_ml,mean,peak,mass,per_healthy_scan,center_x_mm")


def test_other_slices_of_a_batch_change_nothing(study, run):
    store = data_sets.stores(tiny_config(), study)["lesion"]
    images, brains = store.images[:40], store.brains[:40]
    whole, part = run.score(images, brains), run.score(images[17:20], brains[17:20])
    np.testing.assert_allclose(part.scores, whole.scores[17:20], rtol=1e-6)
    np.testing.assert_allclose(part.heatmaps, whole.heatmaps[17:20], rtol=1e-4, atol=1e-6)


def test_a_run_whose_maps_are_averaged_over_slices_predicts_them_so(study, run):
    store = data_sets.stores(tiny_config(), study)["healthy"]
    mine = store.scans == store.scans[0]
    known = run.contents.thresholds.model_copy(update={"neighbours": 2})
    averaged = replace(run, contents=run.contents._replace(thresholds=known))
    plain, found = (one.score(store.images[mine], store.brains[mine]) for one in (run, averaged))
    np.testing.assert_array_equal(found.scores, plain.scores)
    np.testing.assert_array_equal(found.heatmaps, over_neighbours(plain.heatmaps, 2))
    assert averaged.about["neighbours"] == 2


def test_score_and_heatmap_may_come_from_two_scorers():
    random = np.random.default_rng(0)
    images = random.uniform(-1.5, 1.5, (7, 16, 16)).astype(np.float32)
    batch = Batch(images, images > 0, random.uniform(0, 1, 7).astype(np.float32))

    def other(scale, batch):
        sums = (scale * batch.images).sum((1, 2))
        return Scored({"sum": sums}, {"map": batch.images * sums[:, None, None]})

    scorers = [(baseline, {}), (other, np.float32(2))]
    scores, maps = slice_scorer(scorers, "sum", "intensity", 4, jax.local_devices())(batch)
    np.testing.assert_allclose(scores, 2 * images.sum((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(maps, postprocess(np.abs(images), batch.brains), atol=1e-6)


def test_healthy_validation_lies_above_the_thresholds_as_often_as_they_say(study, evaluated):
    store = data_sets.stores(tiny_config(), study)["healthy"]
    rows = store.rows("val")
    scored = evaluated(store, rows)
    kept = content_of(study)
    for name in ("gmm1", "flow"):
        scores, pixels = scored.scores[name], scored.heatmaps[name].ravel()
        assert kept["slices"][name]["n_slices"] == len(rows)
        for values, found in (
            (scores, kept["slices"][name]["thresholds"]),
            (pixels, kept["heatmaps"][name]["pixels"]),
        ):
            for rate, threshold in found.items():
                share = np.mean(values > threshold)
                assert share <= float(rate) < share + 1.01 / len(values) + 1e-5


def test_thresholds_are_kept_and_those_of_other_models_refused(study):
    path = study / "seed0/cradl/thresholds/thresholds.json"
    before = path.stat().st_mtime_ns
    thresholds.main(tiny_config(), study)
    assert path.stat().st_mtime_ns == before
    manifest = path.with_name("manifest.json")
    text = manifest.read_text()
    try:
        manifest.write_text(text.replace(json.loads(text)["made_from"], "0" * 64))
        with pytest.raises(InputError, match="found those of others"):
            load_run(study / "seed0/cradl")
    finally:
        manifest.write_text(text)


def test_missing_or_damaged_thresholds_name_the_command(study):
    path = study / "seed0/cradl/thresholds/thresholds.json"
    text = path.read_text()
    try:
        for damaged in ("{", '{"slices": 1}', "[]"):
            path.write_text(damaged)
            with pytest.raises(InputError, match=r"damaged.*run python -m experiments\.thresholds"):
                load_run(study / "seed0/cradl")
        path.unlink()
        with pytest.raises(InputError, match=r"run python -m experiments\.thresholds"):
            load_run(study / "seed0/cradl")
    finally:
        path.write_text(text)


def test_density_of_another_encoder_is_refused(study):
    manifest = study / "seed0/cradl/densities/manifest.json"
    text = manifest.read_text()
    try:
        manifest.write_text(text.replace(json.loads(text)["made_from"], "0" * 64))
        with pytest.raises(InputError, match="data or weights"):
            load_run(study / "seed0/cradl")
    finally:
        manifest.write_text(text)


def test_default_score_is_the_one_that_validation_chose(study, tmp_path):
    found = results.read_csv(study / "seed0/cradl/evaluation/results.csv")
    rows = [r for r in found if (r.dataset, r.split, r.metric) == ("lesion", "val", "auprc")]
    best = {
        level: max((r for r in rows if r.level == level), key=lambda r: r.value).score
        for level in ("slice", "voxel")
    }
    chosen = load_run(study / "seed0/cradl")
    assert (chosen.score_name, chosen.heatmap_name) == (best["slice"], best["voxel"])
    assert chosen_score([], "cradl", "slice", ["flow", "gmm8", "dense"]) == "dense"
    message = "score: expected one of flow, gmm1, dense, found 'gmm3'; choose one, or name none"
    with pytest.raises(InputError, match=message):
        chosen.using(score="gmm3")
    in_use = {"fpr": chosen.fpr, "mask": chosen.mask, "smallest": chosen.smallest_ml}
    assert in_use == predict.DEFAULTS
    with pytest.raises(InputError, match=r"mask: expected one of component, .*, found '0\.1'"):
        chosen.using(mask="0.1")
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="smallest: expected the volume"):
            chosen.using(smallest_ml=wrong)
    for rate in (0.2, 5, float("nan"), "5 %"):
        found = repr(f"{rate:g}" if rate != "5 %" else rate)
        message = f"fpr: expected one of 0.01, 0.05, 0.1, found {found}; choose one of these"
        with pytest.raises(InputError, match=re.escape(message)):
            chosen.using(fpr=rate)


def test_command_does_the_good_scans_and_names_the_others(study, tmp_path):
    folder, out = tmp_path / "scans", tmp_path / "out"
    oblique(study, folder / "good.nii.gz")
    (folder / "bad.nii.gz").write_bytes(b"no scan")
    write(folder / "speck.nii", np.pad([[[1, 2.0]]], 4).astype(np.float32))
    run = f"--run={study / 'seed0/cradl'}"
    result = commands.run("predict", run, f"--scan={folder}", f"--out={out}", "--fpr=0.1")
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr and "1 of 3 scans" in result.stdout
    rows = {row["scan"]: row for row in table(out / "summary.csv")}
    assert not rows["good"]["error"] and float(rows["good"]["max"]) != 0
    assert "cannot be read" in rows["bad"]["error"] and "bad.nii.gz" in result.stderr
    assert "that fills a pixel" in rows["speck"]["error"] and "speck.nii" in result.stderr
    assert {path.name for path in out.iterdir()} == {
        *("good_anomaly.nii.gz", "good_anomaly_mask.nii.gz", "good_findings.nii.gz"),
        *("good_slices.csv", "good_findings.csv", "good_summary.json", "good.html", "summary.csv"),
    }
    assert json.loads((out / "good_summary.json").read_text())["false_positive_rate"] == 0.1
