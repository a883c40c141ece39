"""Every field of a stored run is checked for its type and range."""

import json

import numpy as np
import pytest

from cradl_jax.data.scans.preparation import Preparation
from cradl_jax.data.slices.scan_statistics import describe
from cradl_jax.errors import LONGEST
from cradl_jax.evaluation import thresholds
from cradl_jax.evaluation.masks import MASKS, HealthyMap, Mask
from cradl_jax.prediction import input_qc
from cradl_jax.runs import contents
from cradl_jax.runs.contents import Thresholds
from cradl_jax.storage.schema import parse
from experiments.study import settings
from tests.helpers.refusals import put, refusal
from tests.helpers.scans import brain, volume
from tests.helpers.tiny_study import tiny_config

NAN, INF, HUGE = float("nan"), float("inf"), 10**400
SPOILED = {
    "slicing.size": (0, -32, 33, 1e9, 2**40, "32", None, True, [32], HUGE),
    "slicing.offset": (-1, 1.5, "3", None, NAN),
    "slicing.slice_spacing_mm": (0, -1, NAN, INF, "1", []),
    "slicing.field_mm": (0, -1, NAN, INF, None, "1"),
    "slicing.detrend": (None, 1, "true"),
    "slicing": ({}, [], None, {"size": 32}),
    "slices": ({}, [], None, "gmm1", {"gmm1": {}}),
    "slices.gmm1.thresholds": ({}, [], {"0.05": 1.0}, None),
    "slices.gmm1.by_height": ([], [[0.0] * 101] * 9, [[0.0] * 100] * 10, [["1"] * 101] * 10, 3),
    "slices.gmm1.scans": ({}, {"max": [1.0]}, []),
    "slices.gmm1.scans.max": ([], [NAN], ["1"], 3, [[1.0]], [HUGE]),
    "slices.gmm1.n_slices": (0, -1, 1.5, "9", None),
    "heatmaps": ({}, None, {"gmm1": {"0.05": 1.0}}),
    "heatmaps.gmm1": ({}, {"0.01": 1.0, "0.05": 1.0, "0.1": 1.0}, [1.0]),
    "heatmaps.gmm1.pixels": ({}, {"0.01": "1", "0.05": 1.0, "0.1": 1.0}, [1.0]),
    "heatmaps.gmm1.masks": ({}, {"component": {"threshold": 1.0, "masses": []}}, [1.0]),
    "heatmaps.gmm1.masks.volume.threshold": (NAN, INF, None, "1"),
    "heatmaps.gmm1.masks.volume.masses": ([-1.0], [NAN], ["1"], 3, None, [[1.0]]),
    "heatmaps.gmm1.n_scans": (0, -1, 1.5, "9", None),
    "neighbours": (-1, 1.5, "2", None, True, 65),
    "training": ({}, None, []),
    "training.n": (0, -3, "7", NAN),
    "training.means.histogram": ([], [0.0] * 59, [NAN] * 60, ["a"] * 60),
    "training.limits": ({}, {"contrast": 1.0}),
    "training.limits.shape": (NAN, INF, -1, "0.5"),
    "training.ranges.brain_ml": ([1.0], [1.0, NAN], [[1.0, 2.0]], None),
    "training.ranges.extent_mm": ([1.0, 2.0], [[1.0], [2.0]]),
    "preparation": ({}, "none", [], 3),
    "preparation.extract": (None, 3, []),
    "preparation.align": ("deform", None, 6),
    "preparation.spacing_mm": (0, -1, NAN, INF, "1"),
}


def known() -> Thresholds:
    """Thresholds of one score on random slices and of one training scan."""
    random = np.random.default_rng(0)
    scores = thresholds.summarize(
        random.normal(size=40), random.uniform(size=40), np.arange(40) // 9
    )
    scan = volume(brain(), np.diag([8.0, 8, 8, 1]))
    spacing = {"slice_spacing_mm": None, "field_mm": 144.0}
    slicing = {"size": 32, "offset": 3, "detrend": True, **spacing}
    training = input_qc.summarize([describe(scan)])
    mask = Mask(threshold=1.0, masses=[2.0, 0.5])
    masks = dict.fromkeys(MASKS, mask)
    healthy_map = HealthyMap(pixels=scores.thresholds, masks=masks, n_scans=5)
    return Thresholds(
        slicing=slicing,
        slices={"gmm1": scores},
        heatmaps={"gmm1": healthy_map},
        training=training,
        preparation=Preparation(extract="none", align="rigid", spacing_mm=1.0),
    )


@pytest.mark.parametrize("path", SPOILED)
def test_thresholds_of_other_types_and_ranges(path):
    content = json.loads(json.dumps(known().model_dump()))
    assert parse(Thresholds, content) == known()
    for value in SPOILED[path]:
        with pytest.raises(ValueError, match=path.split(".")[0]) as caught:
            parse(Thresholds, put(content, path, value))
        assert len(str(caught.value)) < LONGEST


SETTINGS = {
    "method": ("gan", "", None, 3, ["cradl"], "../x"),
    "seed": (-1, 2**40, 0.5, "0", None),
    "contrast": ("t2", "", None, 3, ["T2w"]),
    "size": (0, 31, -32, 2**30, 32.0, "32", None),
    "model.features": (0, -1, 10**9, 4.0, "4"),
    "model.latent": (0, 10**9, None),
    "model.head": ([], [0], [-8], "88", None, [4.5]),
    "model.dtype": ("object", "int8", "float128", None, 4),
    "model": ({}, None, []),
    "loss.beta": (NAN, INF, -1, "1", None),
    "loss": ({}, None, "x"),
}


@pytest.mark.parametrize("path", SETTINGS)
def test_settings_of_other_types_and_ranges(path):
    content = json.loads(json.dumps(settings.of_run(tiny_config(), "cradl")))
    contents.network(content)
    for value in SETTINGS[path]:
        assert path.split(".")[0] in refusal(contents.network, put(content, path, value))
