"""Data sets stand in the order of the config, where its paths lead."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import hcp, phantom, scans
from cradl_jax.data.scans.layouts import Scan
from cradl_jax.errors import InputError
from cradl_jax.prediction.inputs import InputScan, find_scans
from cradl_jax.reporting.summary import Estimate
from experiments.study import config as study_config
from experiments.study import data_sets, phantom_scans, report, synthesis
from tests.helpers.scans import brain, write


@pytest.mark.parametrize(
    ("config", "order"), [(hcp, ["synth", "isles", "brats"]), (phantom, ["synth", "lesion"])]
)
def test_data_sets_of_a_config_keep_its_order(config, order):
    prepared = config.get_config()
    study_config.prepare(prepared)
    assert data_sets.names(prepared) == ["healthy", *order]
    of_a_seed = ConfigDict({**prepared, "seed": 1})
    assert data_sets.names(of_a_seed) == ["healthy", *order]


@pytest.mark.parametrize("lists", [None, "z.csv,a.csv,m.csv"])
def test_lists_of_scans_keep_their_order(lists):
    data = {"healthy": "h.csv", "anomalous": lists, "offset": 1}
    sets = study_config.listed_sets(ConfigDict({"data": data}))
    names = data_sets.names(ConfigDict({"data": {"sets": sets}}))
    assert names == (["healthy", "z", "a", "m"] if lists else ["healthy"])


def test_comparisons_of_methods_stand_in_the_order_of_the_data_sets(monkeypatch):
    monkeypatch.setattr(report, "mean_draws", lambda *_: report.np.zeros(3))
    estimates = [
        Estimate(dataset, level, "full", method, "flow", "auprc", 0.5, 0.4, 0.6)
        for level in ("slice", "voxel")
        for method in ("cradl", "vae")
        for dataset in ("synth", "isles", "brats")
    ]
    found = [(c.dataset, c.level) for c in report.differences(ConfigDict(), Path(), estimates)]
    in_order = [("synth", "slice"), ("isles", "slice"), ("brats", "slice")]
    assert found == in_order + [(name, "voxel") for name, _ in in_order]


def test_lists_of_another_contrast_than_the_studys_are_named():
    cohort = [Scan(name, Path(f"{name}.nii.gz"), None, "train") for name in ("a_T1w", "b_t2", "c")]
    config = scans.get_config()
    warning = data_sets.contrast_warning(config, "healthy", cohort)
    assert "contrast T2w, found 1 of 3 named as T1w" in warning
    assert data_sets.contrast_warning(config, "healthy", cohort[1:]) is None
    config.data.contrast = "T1w"
    assert "contrast T1w, found 1 of 3 named as T2w" in data_sets.contrast_warning(
        config, "healthy", cohort
    )


def test_data_sets_are_generated_as_t2w_alone(tmp_path):
    config = phantom.get_config()
    config.data.contrast = "T1w"
    with pytest.raises(InputError, match=r"contrast: expected T2w, as the phantom is .* found T1w"):
        phantom_scans.make(config, tmp_path)
    config = hcp.get_config()
    config.data.contrast = "FLAIR"
    with pytest.raises(InputError, match=r"T2w, as the data set 'synth' is .* found FLAIR"):
        synthesis.synthesize(config, tmp_path, "synth")
    assert not list(tmp_path.iterdir()), "nothing was begun"


def test_a_data_set_is_found_in_the_contrast_of_the_study(tmp_path):
    image = write(tmp_path / "healthy" / "sub-1" / "anat" / "sub-1_FLAIR.nii.gz", brain())
    config = phantom.get_config()
    config.data.root = str(tmp_path)
    config.data.sets.healthy.splits = {"train": -1}
    config.data.contrast = "FLAIR"
    ((scan,), faults) = data_sets.find_data_set(config, tmp_path, "healthy")
    assert (scan.image, faults) == (image, [])
    config.data.contrast = "PDw"
    _, (fault,) = data_sets.find_data_set(config, tmp_path, "healthy")
    assert "data set 'healthy'" in fault and "found none, but scans of FLAIR" in fault


def test_a_tilde_is_the_home_folder_in_settings_and_cells(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    image = write(tmp_path / "a.nii", brain())
    (tmp_path / "healthy.csv").write_text("subject,split,image,mask\na,train,~/a.nii,\n")
    (tmp_path / "sub" / "new.csv").parent.mkdir()
    (tmp_path / "sub" / "new.csv").write_text("image\n~/a.nii\n")
    config = scans.get_config()
    config.data.update({"healthy": "~/healthy.csv", "anomalous": None, "offset": 1})
    config.data.sets = study_config.listed_sets(config)
    ((scan,), faults) = data_sets.find_data_set(config, tmp_path / "run", "healthy")
    assert (scan.image, faults) == (image, [])
    assert find_scans(tmp_path / "sub" / "new.csv") == [InputScan("a", image)]
    config.data.root = "~/data"
    assert data_sets.data_root(config, tmp_path / "run") == tmp_path / "data"
