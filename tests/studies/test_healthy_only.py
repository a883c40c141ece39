"""A study of healthy scans alone, by one command that finds nothing done."""

import pytest

import cradl_jax
from cradl_jax.evaluation.results import read_csv
from cradl_jax.runs import verification
from experiments import evaluate
from experiments.study import config as study_config
from experiments.study import report
from tests.helpers.tiny_study import tiny_config, write_scans


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("healthy")
    write_scans(workdir / "data")
    config = healthy_only(workdir)
    evaluate.main(config, workdir)
    report.write(config, workdir)
    return workdir


def healthy_only(workdir):
    config = tiny_config()
    config.train.update({"epochs": 1, "warmup_epochs": 0, "batch_size": 16})
    config.data.update(
        {"healthy": str(workdir / "data" / "healthy.csv"), "anomalous": None, "offset": 0}
    )
    config.seeds = (0,)
    config.data.sets = study_config.listed_sets(config)
    assert list(config.data.sets) == ["healthy"]
    return config


def test_new_scans_are_predicted_by_dense_densities(workdir):
    run = cradl_jax.load_run(workdir / "seed0" / "cradl")
    assert (run.score_name, run.heatmap_name) == ("dense", "dense")
    result = run.predict(workdir / "data" / "lesion-test0.nii.gz")
    assert result.mask.any() and result.scores.max() > 0


def test_the_report_says_that_nothing_was_measured(workdir):
    assert read_csv(workdir / "results.csv") == []
    assert "nothing could be measured" in (workdir / "report.html").read_text()
    assert (workdir / "tables.md").read_text() == f"{report.NOTHING_MEASURED}\n"
    assert not [check for check in verification.checks(workdir) if check.faults]
