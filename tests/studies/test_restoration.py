"""Methods without an encoder go the same way: trained, scored, reported, exported, verified."""

import jax
import numpy as np
import pytest

import cradl_jax
from cradl_jax.evaluation.results import read_csv
from cradl_jax.names import RESTORERS
from cradl_jax.runs import archive, verification
from cradl_jax.runs.folder import read_variables
from cradl_jax.scoring import restoration
from experiments import evaluate
from experiments.study import data_sets, pose, report, settings
from tests.helpers.tiny_study import tiny_config


@pytest.fixture(scope="module")
def config():
    config = tiny_config()
    config.seeds, config.methods = (0,), RESTORERS
    config.train.update({"epochs": 2, "warmup_epochs": 1, "batch_size": 32})
    return config


@pytest.fixture(scope="module")
def workdir(study, config):
    evaluate.main(config, study)
    return study


def test_scores_are_what_the_network_restores(config, workdir):
    store = data_sets.stores(config, workdir)["lesion"]
    for method in RESTORERS:
        run = cradl_jax.load_run(workdir / "seed0" / method).using("rec", "rec")
        assert run.scores == run.heatmaps == ["rec", "rec_scan"] and run.contents.dense is None
        scores, _ = run.score(store.images[:20], store.brains[:20])
        model = settings.network(config, method)
        variables = read_variables(workdir / "seed0" / method)
        batch = (store.images[:20], store.brains[:20], store.position[:20])
        expected = jax.jit(restoration(model))(variables, cradl_jax.scoring.Batch(*batch))
        np.testing.assert_allclose(scores, expected.scores["rec"], rtol=1e-4)


def test_an_exported_run_gives_the_same_to_the_bit_and_verifies(workdir, tmp_path):
    scan = workdir / "data" / "lesion-test1.nii.gz"
    for method in RESTORERS:
        folder = workdir / "seed0" / method
        assert not (folder / "densities").exists()
        assert not [check for check in verification.checks(folder) if check.faults]
        run, path = cradl_jax.load_run(folder), tmp_path / f"{method}.safetensors"
        archive.write(path, run.contents)
        assert not [check for check in verification.checks(path) if check.faults]
        again = cradl_jax.load_run(path)
        assert again.contents.fingerprint == run.contents.fingerprint
        expected, found = (one.predict(scan) for one in (run, again))
        np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_tables_of_the_paper_do_not_choose_them(config, workdir):
    page = report.write(config, workdir).read_text()
    rows = read_csv(workdir / "results.csv")
    assert {row.method for row in rows} == {*RESTORERS, "baseline"}
    tables = (workdir / "tables.md").read_text()
    as_table_2 = tables[tables.index("(as Table 2)") : tables.index("(as Table 3)")]
    assert "DAE" not in as_table_2 and "Baseline" in as_table_2
    assert "| lesion | DAE | " in tables and "| lesion | DISYRE | " in tables
    assert "Beyond the paper, DAE and DISYRE restore slices" in page
    scorers = dict(pose.chosen_scorers(config, workdir, data_sets.stores(config, workdir)))
    assert [*scorers] == [("dae", "own"), ("disyre", "own"), ("baseline", "own")]
