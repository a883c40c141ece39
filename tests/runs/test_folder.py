"""The score that a run uses by default."""

import math
from itertools import permutations

from cradl_jax.evaluation.results import Result
from cradl_jax.runs.folder import chosen_score

AUPRC = {"a": {"gmm1": 0.55, "kl": 0.9, "rec": 0.4}, "b": {"gmm1": 0.55, "kl": 0.0, "rec": 0.8}}
MEANS = {"gmm1": 0.55, "kl": 0.45, "rec": 0.6}


def rows(*datasets, split="val", value=None):
    return [
        Result(0, "vae", score, name, split, "slice", "auprc", found if value is None else value)
        for name in datasets
        for score, found in AUPRC[name].items()
    ]


def test_the_default_is_the_best_mean_over_data_sets_in_whatever_order():
    assert max(MEANS, key=MEANS.__getitem__) == "rec"
    names = ["gmm1", "kl", "rec", "dense"]
    for order in permutations("ab"):
        assert chosen_score(rows(*order), "vae", "slice", names) == "rec"
    assert chosen_score(rows("a"), "vae", "slice", names) == "kl"


def test_what_is_undefined_or_of_test_scans_takes_no_part():
    names = ["gmm1", "kl", "rec", "dense"]
    undefined = rows("b", value=math.nan)
    assert chosen_score([*undefined, *rows("a")], "vae", "slice", names) == "kl"
    assert chosen_score([*rows("b", split="test"), *rows("a")], "vae", "slice", names) == "kl"
    assert chosen_score(undefined, "vae", "slice", names) == "dense"
