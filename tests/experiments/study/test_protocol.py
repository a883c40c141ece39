"""What is measured beyond the paper where healthy test scans, or slices of a scan, are missing."""

import json

import numpy as np

from cradl_jax.evaluation.results import read_csv
from experiments import evaluate
from experiments.study import report
from experiments.study.scores import stacked
from tests.helpers.tiny_study import tiny_config


def test_a_study_without_healthy_test_scans_says_so_and_goes_on(study):
    config = tiny_config()
    config.seeds = (0,)
    evaluate.main(config, study)
    report.write(config, study)
    levels = {row.level for row in read_csv(study / "results.csv")}
    assert levels == {"slice", "voxel", "scan"}
    scans = {row.metric for row in read_csv(study / "results.csv") if row.level == "scan"}
    assert "dice_median" in scans and all(metric.startswith("dice") for metric in scans)
    text = (study / "tables.md").read_text()
    assert text.count("The healthy data set has no split test") == 1
    assert "Dice of each test scan" in text and "voxels of the brain alone" in text
    assert "detection of scans" not in text and "false positives in healthy" not in text
    evaluated = study / "seed0" / "cradl" / "evaluation"
    assert not (evaluated / "healthy_test.npz").exists()
    assert json.loads((evaluated / "manifest.json").read_text())["settings"]["protocol"] == 1


def test_slices_stand_at_their_places_in_a_stack():
    slices = np.arange(1, 13).reshape(3, 2, 2)
    found = stacked(slices, np.array([4, 5, 8]))
    assert found.shape == (5, 2, 2) and not found[2:4].any()
    np.testing.assert_array_equal(found[[0, 1, 4]], slices)
