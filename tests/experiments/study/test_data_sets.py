"""Data sets stand in the order of the config."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import hcp, phantom
from cradl_jax.reporting.summary import Estimate
from experiments.study import config as study_config
from experiments.study import data_sets, report


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
