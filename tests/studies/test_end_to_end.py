"""The whole study on a tiny phantom, and how it answers to mistakes."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from itertools import product
from operator import itemgetter
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from configs import phantom, scans
from cradl_jax.data.scans.layouts import find_scans
from cradl_jax.errors import InputError
from cradl_jax.evaluation.results import read_csv
from cradl_jax.names import PATCHES
from cradl_jax.runs import verification
from cradl_jax.runs.checkpoints import read_fingerprint
from cradl_jax.runs.folder import read_baselines, read_variables
from cradl_jax.scoring import Batch, baseline, over_scan, post_processed
from cradl_jax.storage import integrity
from experiments import evaluate, reproduce, thresholds
from experiments.study import config as study_config
from experiments.study import (
    data_sets,
    evaluation,
    fitting,
    pose,
    preprocessing,
    protocol_report,
    report,
    runs,
    stages,
    sweep,
)
from experiments.study.foreign import Source
from tests.helpers import golden
from tests.helpers.scans import write

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests" / "golden" / "tiny.csv"
DENSITIES = {"gmm1", "gmm2", "flow"}
VAE = {
    "slice": DENSITIES | {"dense", "elbo", "kl", "rec"},
    "voxel": DENSITIES | {"dense", "rec", "kl_grad", "combi"},
}
SCORES = {
    "cradl": {"slice": DENSITIES | {"dense"}, "voxel": DENSITIES | {"dense"}},
    "vae": VAE,
    "cevae": VAE,
    "baseline": {
        "slice": {"position", "area", *PATCHES},
        "voxel": {"intensity", "equalized", *PATCHES},
    },
}
RATES = ("0.01", "0.05", "0.1")
METRICS = {"auprc", "auroc", "dice", "fpr95", "prevalence"} | {
    f"{metric}@{rate}" for metric in ("dice", "sensitivity", "fpr") for rate in RATES
}


def tiny_config():
    config = phantom.get_config()
    config.update(config.smoke_settings)
    config.phantom.spacing_mm = 4.0
    config.phantom.subjects.healthy.train = 4
    config.data.size = 32
    config.model.update({"features": 4, "latent": 8, "head": (8, 4)})
    config.train.update({"epochs": 2, "batch_size": 32})
    config.gmm.components = (1, 2)
    config.flow.update({"blocks": 2, "hidden": 8, "epochs": 2})
    return config


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("study")
    reproduce.main(tiny_config(), workdir)
    return workdir


def test_every_score_is_measured_on_every_set(study):
    rows = [row for row in read_csv(study / "results.csv") if not is_beyond(row)]
    found = {(r.method, r.level, r.score, r.dataset, r.split, r.metric) for r in rows}
    expected = {
        (method, level, score, dataset, split, metric)
        for method, levels in SCORES.items()
        for level, scores in levels.items()
        for score in scores
        for dataset in ("synth", "lesion")
        for split in ("val", "test")
        for metric in METRICS
    }
    assert found == expected
    assert len(rows) == len(expected)
    assert all(0 <= row.value <= 1 for row in rows)


def is_beyond(row):
    """Whether a metric is of the protocol beyond the paper."""
    return row.level in ("scan", "lesion") or row.metric.endswith("_brain")


def test_every_score_is_measured_beyond_the_paper_on_test_alone(study):
    rows = [row for row in read_csv(study / "results.csv") if is_beyond(row)]
    assert {row.split for row in rows} == {"test"}
    found = {(r.dataset, r.method, r.score) for r in rows if r.metric == "auroc_p95"}
    assert found == {
        (dataset, method, score)
        for dataset in ("synth", "lesion")
        for method, levels in SCORES.items()
        for score in levels["slice"]
    }
    for metric in ("auprc_brain", "dice@0.05_brain", "dice@0.05_median", "sensitivity@0.5fp_q4"):
        found = {(r.dataset, r.method, r.score) for r in rows if r.metric == metric}
        assert found == {
            (dataset, method, score)
            for dataset in ("synth", "lesion")
            for method, levels in SCORES.items()
            for score in levels["voxel"]
        }


def test_scans_are_told_as_scikit_learn_says(study):
    rows = {r[1:7]: r.value for r in read_csv(study / "results.csv") if r.level == "scan"}
    stores = data_sets.stores(tiny_config(), study)
    for method, dataset in product(SCORES, ("synth", "lesion")):
        folder, store = study / "seed0" / method / "evaluation", stores[dataset]
        slices = np.load(folder / f"{dataset}_test_slices.npz")
        healthy = np.load(folder / "healthy_test.npz")
        scans = store.scans[store.rows("test")]
        for score in SCORES[method]["slice"]:
            of_each = [healthy[f"slice-{score}"][healthy["scans"] == 6 + k] for k in range(2)]
            of_each += [slices[score][scans == scan] for scan in np.unique(scans)]
            for name, of_scan in {"max": np.max, "mean": np.mean}.items():
                expected = roc_auc_score([0, 0, 1, 1], [of_scan(values) for values in of_each])
                key = (method, score, dataset, "test", "scan", f"auroc_{name}")
                assert rows[key] == pytest.approx(expected)


def test_false_positives_are_grouped_by_what_the_participants_table_says(study, tmp_path):
    config, study = tiny_config(), shutil.copytree(study, tmp_path / "study", symlinks=True)
    table = study / "data" / "healthy" / "participants.tsv"
    healthy = data_sets.stores(config, study)["healthy"]
    found, (note,) = protocol_report.groups(config, study, healthy)
    assert list(found) == ["all"] and note.endswith("test scans: site, scanner, age, sex.")
    ends = {"healthy007": "\tGuys\t23.5", "healthy008": "\t<b>\tn/a"}
    header, *lines = table.read_text().splitlines()
    added = [line + ends.get(line.split("\t")[0][4:], "\t\t") for line in lines]
    table.write_text("\n".join([header + "\tSite\tage", *added]) + "\n")
    found, (note,) = protocol_report.groups(config, study, healthy)
    found = {name: scans.tolist() for name, scans in found.items()}
    assert found == {
        **{"all": [0, 1], "site <b>": [1], "site Guys": [0]},
        **{"age 20 to 39": [0], "age not stated": [1]},
    }
    assert note.endswith("test scans: scanner, sex.")
    report.write(config, study)
    page = (study / "report.html").read_text()
    assert "age 20 to 39" in page and "site &lt;b&gt;" in page and "<b>" not in page
    table.unlink()
    found, (note,) = protocol_report.groups(config, study, healthy)
    assert list(found) == ["all"] and "are left out" in note and "participants.tsv" in note


def test_a_ball_is_seen_better_the_brighter_it_is(study, monkeypatch):
    monkeypatch.setattr(sweep, "BRIGHTNESS", (0.0, 1.5))
    monkeypatch.setattr(sweep, "TEXTURE", (0.0,))
    config = tiny_config()
    config.methods = ("cradl",)
    folder = sweep.measure(config, study)
    with (folder / "sweep.csv").open(newline="") as file:
        seen = {tuple(row.values())[:4]: float(row["auprc"]) for row in csv.DictReader(file)}
    assert len(seen) == 3 * 2 * 2  # scorers, levels, objects
    for method, score in (("baseline", "own"), ("cradl", "dense")):
        assert seen[method, score, "voxel", "1.5"] > seen[method, score, "voxel", "0.0"]
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(data_sets, "find_data_set", lambda *_: ([], []))
    with pytest.raises(InputError, match=r"in the split test .* found none"):
        sweep.measure(config, study)


def above(scores, labels, threshold):
    """Return Dice, sensitivity and false-positive rate above a threshold, by definition."""
    found = scores > np.float32(threshold)
    return {
        "dice": 2 * (found & labels).sum() / (found.sum() + labels.sum()),
        "sensitivity": found[labels].mean(),
        "fpr": found[~labels].mean(),
    }


def test_metrics_at_a_rate_are_those_of_what_lies_above_the_healthy_threshold(study):
    """Slice scores are those that the study kept, the baselines' heatmaps are computed again."""
    stores = data_sets.stores(tiny_config(), study)
    rows = {r[1:7]: r.value for r in read_csv(study / "results.csv")}
    for method, dataset in product(SCORES, ("synth", "lesion")):
        folder = study / "seed0" / method
        kept = json.loads((folder / "thresholds" / "thresholds.json").read_text())
        slices = np.load(folder / "evaluation" / f"{dataset}_test_slices.npz")
        pairs = [
            ("slice", score, slices[score], slices["labels"], kept["slices"][score]["thresholds"])
            for score in SCORES[method]["slice"]
        ]
        if method == "baseline":
            store = stores[dataset]
            test = store.rows("test")
            batch = Batch(store.images[test], store.brains[test], store.position[test])
            processed = jax.device_get(post_processed(baseline)(read_baselines(folder), batch))
            scans = [store.scans[test] == scan for scan in np.unique(store.scans[test])]
            whole = [
                over_scan(jax.tree.map(itemgetter(rows), processed)).heatmaps for rows in scans
            ]
            for name in processed.heatmaps:
                known = kept["heatmaps"][name]["pixels"]
                heatmap = np.empty_like(processed.heatmaps[name])
                for in_scan, maps in zip(scans, whole, strict=True):
                    heatmap[in_scan] = maps[name]
                pairs.append(("voxel", name, heatmap, store.masks[test], known))
        for level, score, scores, labels, known in pairs:
            for rate in RATES:
                for metric, value in above(scores, labels, known[rate]).items():
                    key = (method, score, dataset, "test", level, f"{metric}@{rate}")
                    assert rows[key] == pytest.approx(value, abs=1e-4)


def test_study_leaves_a_report_and_logs(study):
    page = (study / "report.html").read_text()
    assert page.count("data:image/png;base64") == len(list((study / "figures").glob("*.png")))
    tables = (study / "tables.md").read_text()
    for found in ("(as Table 1)", "(as Table 8)", "bootstrap 95 % intervals", "Paired difference"):
        assert found in tables
    for found in ("detection of scans", "lesions that are hit", "false positives in healthy test"):
        assert f"Beyond the paper: {found}" in tables
    history = (study / "seed0" / "cradl" / "metrics.jsonl").read_text()
    assert "train/loss" in history and "val/loss" in history


def test_evaluation_needs_thresholds_and_rests_on_the_healthy_data(study, tmp_path):
    shutil.copytree(study / "slices", tmp_path / "slices")
    with pytest.raises(InputError, match=r"found none; run python -m experiments\.density"):
        evaluation.evaluate(tiny_config(), tmp_path, "baseline")
    fitted = Path("seed0", "baseline", "densities")
    shutil.copytree(study / fitted, tmp_path / fitted)
    with pytest.raises(InputError, match=r"no such file; run python -m experiments\.thresholds"):
        evaluation.evaluate(tiny_config(), tmp_path, "baseline")
    manifest = json.loads((study / "seed0" / "cradl" / "evaluation" / "manifest.json").read_text())
    stores = data_sets.stores(tiny_config(), study)
    assert manifest["settings"]["data"] == {
        name: store.manifest["fingerprint"] for name, store in stores.items()
    }


def test_golden_figures_have_not_changed(study):
    """golden.py describes how to renew them."""
    found = golden.figures(study)
    if os.environ.get("RENEW_GOLDEN"):
        golden.write(GOLDEN, found)
    assert golden.differences(GOLDEN, found) == []
    name = "0 baseline area synth test slice auroc"
    assert golden.differences(GOLDEN, found | {name: (found[name][0] + 0.01, 0)})
    assert golden.differences(GOLDEN, {k: v for k, v in found.items() if k != name})


def test_the_study_verifies_and_other_results_than_its_runs_are_named(study, tmp_path):
    study = shutil.copytree(study, tmp_path / "study", symlinks=True)
    found = list(verification.checks(study))
    assert len(found) > 30 and not [check for check in found if check.faults]
    results = study / "results.csv"
    results.write_text(results.read_text().replace("synth", "sinth", 1))
    faults = [fault for check in verification.checks(study) for fault in check.faults]
    assert len(faults) == 1 and faults[0].startswith(f"{results}: found another")
    integrity.write_checksums(study, "results.csv")
    faults = [fault for check in verification.checks(study) for fault in check.faults]
    assert len(faults) == 1 and f"{results}: expected the results" in faults[0]


def test_a_foreign_method_is_in_tables_comparisons_and_figures_and_verified(study, tmp_path):
    workdir = shutil.copytree(study, tmp_path / "study")
    config, maps = tiny_config(), tmp_path / "maps"
    for scan in (workdir / "data").glob("*/sub-*/anat/*_T2w.nii.gz"):
        image = nib.load(scan)
        write(maps / scan.name, np.abs(image.get_fdata(dtype=np.float32)), image.affine)
    stages.evaluate_foreign(
        config, workdir, "My method 2", Source(maps, None, None, postprocess=True)
    )
    page = report.write(config, workdir).read_text()
    tables = (workdir / "tables.md").read_text()
    assert "My method 2" not in (study / "tables.md").read_text()
    assert tables.count("\n| My method 2 | ") == 8  # Tables 2, 3, 5 to 8, and further metrics
    for dataset in ("synth", "lesion"):
        assert f"| {dataset} | My method 2 | Given map |" in tables
    differences = tables[tables.index("Paired difference") :].split("\n\n")[1]
    assert differences.count("My method 2") >= 4
    assert "maps of My method 2, seed 0" in page
    assert page.count("data:image/png;base64") == len(list((workdir / "figures").glob("*.png")))
    assert not [check for check in verification.checks(workdir) if check.faults]
    heatmaps = workdir / "seed0" / "My method 2" / "heatmaps" / "lesion.npy"
    heatmaps.write_bytes(heatmaps.read_bytes()[:-1] + b"x")
    faults = [fault for check in verification.checks(workdir) for fault in check.faults]
    assert len(faults) == 1 and str(heatmaps) in faults[0]


def test_second_run_skips_what_is_done_and_changes_nothing(study):
    before = {p: p.stat().st_mtime_ns for p in (study / "seed0").rglob("*.npz")}
    results = (study / "results.csv").read_bytes()
    reproduce.main(tiny_config(), study)
    assert (study / "results.csv").read_bytes() == results
    assert before == {p: p.stat().st_mtime_ns for p in before}


def healthy_of(config, workdir):
    return data_sets.stores(config, workdir)["healthy"]


def test_other_settings_in_the_same_folder_are_refused(study):
    config = tiny_config()
    config.train.learning_rate = 0.5
    with pytest.raises(
        InputError, match=r"different settings \(train\.learning_rate: expected 0\.5"
    ):
        reproduce.main(config, study)
    config = tiny_config()
    config.gmm.tolerance = 0.5
    with pytest.raises(InputError, match=r"densities.*gmm\.tolerance"):
        runs.scorers(config, study, "cradl", healthy_of(config, study))


def test_run_of_another_method_is_refused(study, tmp_path):
    shutil.copytree(study / "slices", tmp_path / "slices")
    shutil.copytree(study / "seed0" / "vae", tmp_path / "seed0" / "cradl")
    with pytest.raises(InputError, match="method: expected 'cradl', found 'vae'"):
        runs.scorers(tiny_config(), tmp_path, "cradl", healthy_of(tiny_config(), tmp_path))


def test_checkpoint_of_another_size_is_refused(study, tmp_path):
    config = tiny_config()
    shutil.copytree(study / "slices", tmp_path / "slices")
    shutil.copytree(study / "seed0" / "cradl", tmp_path / "seed0" / "cradl")
    config.model.features = 8
    manifest = tmp_path / "seed0" / "cradl" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"features": 4', '"features": 8'))
    with pytest.raises(InputError, match=r"another run .*model\.features: expected 8, found 4"):
        run = runs.check(config, tmp_path, "cradl", healthy_of(config, tmp_path))
        read_variables(run)


def test_density_of_another_encoder_is_refused(study, tmp_path):
    config = tiny_config()
    folder = study / "seed0" / "cradl" / "densities"
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    try:
        network = read_fingerprint(study / "seed0" / "cradl")
        manifest.write_text(text.replace(network, "0" * 64))
        with pytest.raises(InputError, match="data or weights"):
            runs.scorers(config, study, "cradl", healthy_of(config, study))
    finally:
        manifest.write_text(text)


def test_the_same_scans_listed_in_csv_files_give_the_same_slices(study, tmp_path):
    for name in ("healthy", "synth"):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["subject", "split", "image", "mask"])
            for scan in find_scans(study / "data" / name, "bids"):
                paths = [
                    os.path.relpath(path, tmp_path) if path else ""
                    for path in (scan.image, scan.mask)
                ]
                writer.writerow([scan.subject, scan.split, *paths])
    config = scans.get_config()
    config.data.update({"size": 32})
    config.data.healthy = str(tmp_path / "healthy.csv")
    config.data.anomalous = str(tmp_path / "synth.csv")
    config.data.sets = study_config.listed_sets(config)
    preprocessing.preprocess(config, tmp_path / "run")
    listed = data_sets.stores(config, tmp_path / "run")
    original = data_sets.stores(tiny_config(), study)
    assert list(listed) == ["healthy", "synth"]
    for name, store in listed.items():
        assert (store.images == original[name].images).all()
        assert (store.splits == original[name].splits).all()


def test_missing_split_is_named_before_anything_runs(study, tmp_path):
    config = tiny_config()
    del config.data.sets["lesion"]
    config.data.root = str(study / "data")
    config.data.sets.synth.update({"layout": "csv", "path": str(tmp_path / "synth.csv")})
    scan = next(s for s in find_scans(study / "data" / "synth", "bids") if s.split == "test")
    (tmp_path / "synth.csv").write_text(
        f"subject,split,image,mask\n{scan.subject},test,{scan.image},{scan.mask}\n"
    )
    with pytest.raises(InputError, match="splits val and test, found test"):
        preprocessing.preprocess(config, tmp_path / "run")
    assert not (tmp_path / "run" / "slices").exists()


def test_data_set_with_one_class_has_no_metrics_but_a_note(study, tmp_path):
    """Validation scans have anomalies, test scans have none."""
    lines = ["subject,split,image,mask"]
    for scan in find_scans(study / "data" / "synth", "bids"):
        mask = scan.mask if scan.split == "val" else ""
        lines.append(f"{scan.subject},{scan.split},{scan.image},{mask}")
    (tmp_path / "plain.csv").write_text("\n".join(lines))
    config = tiny_config()
    config.methods = ("cradl",)
    config.data.root = str(study / "data")
    del config.data.sets["synth"]
    config.data.sets.lesion.update({"layout": "csv", "path": str(tmp_path / "plain.csv")})
    for kept in ("checkpoints", "densities"):
        shutil.copytree(study / "seed0" / "cradl" / kept, tmp_path / "seed0" / "cradl" / kept)
    for kept in ("manifest.json", "metrics.jsonl"):
        shutil.copy(study / "seed0" / "cradl" / kept, tmp_path / "seed0" / "cradl" / kept)
    preprocessing.preprocess(config, tmp_path)
    fitting.fit_baselines(config, tmp_path)
    thresholds.main(config, tmp_path)
    evaluate.main(config, tmp_path)
    report.write(config, tmp_path)
    rows = [row for row in read_csv(tmp_path / "results.csv") if row.split == "test"]
    for metric, defined in (("auroc", False), ("dice@0.05", False), ("fpr@0.05", True)):
        values = [row.value for row in rows if row.metric == metric]
        assert values and all(math.isnan(value) != defined for value in values)
    written = (tmp_path / "tables.md").read_text()
    assert "no metric is defined on test" in written and "no Dice is defined on test" in written


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_mistake_ends_in_one_line_and_status_2(tmp_path):
    missing = tmp_path / "nowhere.csv"
    result = command(
        "experiments.preprocess",
        "--config=configs/scans.py",
        f"--config.data.healthy={missing}",
        f"--config.data.anomalous={missing}2",
        f"--workdir={tmp_path / 'run'}",
    )
    assert result.returncode == 2
    assert "nowhere.csv" in result.stderr and "Traceback" not in result.stderr


def test_prevalence_agrees_between_methods(study):
    rows = [r for r in read_csv(study / "results.csv") if r.metric == "prevalence"]
    for dataset in ("synth", "lesion"):
        for level in ("slice", "voxel"):
            values = {
                r.value for r in rows if (r.dataset, r.level, r.split) == (dataset, level, "test")
            }
            assert len(values) == 1 and not math.isnan(values.pop())


def test_scans_that_are_not_moved_get_the_figures_of_the_evaluation(study, monkeypatch):
    monkeypatch.setattr(pose, "POSES", ((0, 0), (20, 0)))
    config = tiny_config()
    config.methods = ("cradl",)
    folder = pose.measure(config, study)
    with (folder / "pose.csv").open(newline="") as file:
        losses = list(csv.DictReader(file))
    assert len(losses) == 2 * 2 * 3 * 2  # data sets, poses, scorers, levels
    evaluated = {row[1:7]: row.value for row in read_csv(study / "results.csv")}
    for loss in losses:
        if (loss["score"], loss["degrees"]) == ("dense", "0"):
            key = ("cradl", "dense", loss["dataset"], "val", loss["level"], "auprc")
            assert float(loss["auprc"]) == pytest.approx(evaluated[key], abs=1e-3)
    assert (folder / "pose.png").read_bytes().startswith(b"\x89PNG")
