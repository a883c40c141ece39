"""Methods that the paper lacks go the same way: trained, scored, reported, exported, verified."""

import jax
import numpy as np
import pytest

import cradl_jax
from cradl_jax.evaluation.results import LEVELS, read_csv, select_scores
from cradl_jax.names import PRETEXTS, RESTORERS, has_encoder
from cradl_jax.runs import verification
from cradl_jax.runs.folder import read_variables
from cradl_jax.scoring import restoration
from experiments.study import data_sets, pose, report, settings
from tests.helpers import exports
from tests.helpers.tiny_study import tiny_config


@pytest.fixture(scope="module")
def config():
    config = tiny_config()
    config.seeds, config.methods = (0,), (*PRETEXTS, *RESTORERS)
    config.train.update({"epochs": 2, "warmup_epochs": 1, "batch_size": 32})
    return config


@pytest.fixture(scope="module")
def page(config, workdir):
    return report.write(config, workdir).read_text()


def test_scores_are_what_the_network_restores(config, workdir):
    store = data_sets.stores(config, workdir)["lesion"]
    for method in RESTORERS:
        run = cradl_jax.load_run(workdir / "seed0" / method).using("rec", "rec")
        assert run.scores == run.heatmaps == ["rec", "rec_scan"] and not run.contents.of_features
        scores, _ = run.score(store.images[:20], store.brains[:20])
        model = settings.network(config, method)
        variables = read_variables(workdir / "seed0" / method)
        batch = (store.images[:20], store.brains[:20], store.position[:20])
        expected = jax.jit(restoration(model))(variables, cradl_jax.scoring.Batch(*batch))
        np.testing.assert_allclose(scores, expected.scores["rec"], rtol=1e-4)


def test_scores_of_a_pretext_are_densities_of_its_encoder_alone(workdir):
    for method in PRETEXTS:
        run = cradl_jax.load_run(workdir / "seed0" / method)
        assert {*run.scores} == {*run.heatmaps} == {"gmm1", "flow", "dense"}


def test_an_exported_run_gives_the_same_to_the_bit_and_verifies(config, workdir, tmp_path):
    scan = workdir / "data" / "lesion-test1.nii.gz"
    for method in config.methods:
        folder = workdir / "seed0" / method
        assert (folder / "densities").exists() == has_encoder(method)
        assert not [check for check in verification.checks(folder) if check.faults]
        exports.check(cradl_jax.load_run(folder), scan, tmp_path / f"{method}.safetensors")


def test_tables_of_the_paper_do_not_choose_them(config, workdir, page):
    rows = read_csv(workdir / "results.csv")
    assert {row.method for row in rows} == {*config.methods, "baseline"}
    tables = (workdir / "tables.md").read_text()
    as_table_2 = tables[tables.index("(as Table 2)") : tables.index("(as Table 3)")]
    names = "CutPaste", "MAE", "DAE", "DISYRE"
    assert not any(name in as_table_2 for name in names) and "Baseline" in as_table_2
    assert all(f"| lesion | {name} | " in tables for name in names)
    assert "Beyond the paper, DAE and DISYRE restore slices" in page
    assert "Beyond the paper, CutPaste and MAE train the encoder by other pretexts" in page
    scorers = dict(pose.chosen_scorers(config, workdir, data_sets.stores(config, workdir)))
    pretexts = [(method, name) for method in PRETEXTS for name in ("own", "dense")]
    assert [*scorers] == [*pretexts, ("dae", "own"), ("disyre", "own"), ("baseline", "own")]


@pytest.mark.usefixtures("page")
def test_encoders_are_compared_by_what_was_measured_of_their_densities(workdir):
    table = (workdir / "tables.md").read_text().split("pretexts for the same encoder")[1]
    lines = [line for line in table.splitlines() if line.startswith("| ")][2:4]
    rows = read_csv(workdir / "results.csv")
    chosen = select_scores(rows)
    for method, line in zip(PRETEXTS, lines, strict=True):
        scores = [chosen["lesion", level, "radl", method] for level in LEVELS] + 2 * ["dense"]
        measured = {
            (row.score, row.level): row.value
            for row in rows
            if (row.method, row.split, row.metric) == (method, "test", "auprc")
        }
        cells = line.replace("*", "").split("|")[4:8]
        found = [float(cell.split("(")[0]) for cell in cells]
        levels = [*LEVELS, *LEVELS]
        expected = [100 * measured[pair] for pair in zip(scores, levels, strict=True)]
        np.testing.assert_allclose(found, expected, atol=0.051)
