"""A VAE's restoration, and the baselines without a network: measured, exported, loaded alike."""

import jax
import numpy as np
import pytest

import cradl_jax
from cradl_jax import methods, scoring
from cradl_jax.errors import InputError
from cradl_jax.evaluation.results import read_csv, select_scores
from experiments import density, evaluate
from experiments.study import data_sets, fitting, report, settings
from tests.helpers import exports
from tests.helpers.refusals import refusal
from tests.helpers.tiny_study import tiny_config

STEPS = 2


@pytest.fixture(scope="module")
def config():
    config = tiny_config()
    config.seeds, config.methods, config.score.restoration_steps = (0,), ("vae",), STEPS
    with config.unlocked():
        config.overrides.vae.train = {"epochs": 2, "batch_size": 32}
    return config


@pytest.fixture(scope="module")
def batch(config, workdir):
    store = data_sets.stores(config, workdir)["lesion"]
    return scoring.Batch(store.images[:20], store.brains[:20], store.position[:20])


def test_a_vae_has_the_map_of_its_restoration(config, workdir, batch):
    run = cradl_jax.load_run(workdir / "seed0" / "vae").using("restored", "restored")
    assert run.contents.thresholds.restoration_steps == STEPS
    model = settings.network(config, "vae")
    *_, restored = methods.own_scorers(model, config.loss.beta, STEPS)
    scored = jax.jit(scoring.post_processed(restored))(run.contents.variables, batch)
    expected = scoring.over_scan(jax.tree.map(np.asarray, scored))
    scores, maps = run.score(*batch)
    np.testing.assert_allclose(maps, expected.heatmaps["restored"], atol=1e-5)
    np.testing.assert_allclose(scores, maps.max((1, 2)), rtol=1e-6)
    assert maps.max() > 0


def test_restoration_is_chosen_beyond_the_paper_alone(config, workdir):
    report.write(config, workdir)
    rows = [row for row in read_csv(workdir / "results.csv") if row.method == "vae"]
    better = [row._replace(value=2.0) if row.score == "restored" else row for row in rows]
    for choice, score in select_scores(better).items():
        assert (score == "restored") == (choice.comparison == "beyond")


def test_a_study_of_other_steps_is_refused(config, workdir):
    other = config.copy_and_resolve_references()
    other.score.restoration_steps = 0
    with pytest.raises(InputError, match="restoration_steps: expected no such setting, found 2"):
        evaluate.main(other, workdir)


def test_the_baselines_are_a_run(workdir, batch):
    run = cradl_jax.load_run(workdir / "seed0" / "baseline")
    assert {*run.scores} == {"position", "area", "pixel", "patch"}
    assert {*run.heatmaps} == {"intensity", "equalized", "pixel", "patch"}
    scores, maps = run.using("area", "intensity").score(*batch)
    np.testing.assert_array_equal(scores, batch.brains.sum((1, 2)))
    assert maps.shape == batch.images.shape
    scored = scoring.post_processed(scoring.baseline)(dict(run.contents.of_features), batch)
    expected = scoring.over_scan(jax.tree.map(np.asarray, scored))
    _, maps = run.using("pixel", "pixel").score(*batch)
    np.testing.assert_allclose(maps, expected.heatmaps["pixel"], atol=1e-4)


@pytest.mark.parametrize("method", ["vae", "baseline"])
def test_an_exported_run_gives_the_same_to_the_bit_and_verifies(method, workdir, tmp_path):
    scan = workdir / "data" / "lesion-test1.nii.gz"
    run = cradl_jax.load_run(workdir / "seed0" / method)
    exports.check(run, scan, tmp_path / "run.safetensors")


def test_baselines_of_an_older_study_become_a_run_when_densities_are_asked_for(config, workdir):
    manifest = workdir / "seed0" / "baseline" / "manifest.json"
    manifest.unlink()
    assert "run the stages before this one" in refusal(cradl_jax.load_run, manifest.parent)
    density.main(config, workdir)
    assert cradl_jax.load_run(manifest.parent).contents.manifest["settings"]["size"] == 32


def test_baselines_of_other_slices_are_no_run(config, workdir):
    run = cradl_jax.load_run(workdir / "seed0" / "baseline").contents
    settings = {**run.manifest["settings"], "size": 64}
    with pytest.raises(ValueError, match="pixels"):
        cradl_jax.runs.contents.check(run._replace(manifest={**run.manifest, "settings": settings}))
    with pytest.raises(ValueError, match="0 models of features"):
        cradl_jax.runs.contents.check(run._replace(of_features={}))
    assert fitting.settings.of_slices(config, "baseline") == run.manifest["settings"]
