"""Metrics of whole scans against scikit-learn, numpy's quantiles and Dice by definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from cradl_jax.evaluation import bootstrap, scan_level


def test_a_scans_scores_are_worked_by_hand():
    scores = np.array([1.0, 5.0, 3.0, 2.0, 4.0])
    found = scan_level.scan_scores(scores, np.array([7, 7, 7, 9, 9]))
    assert found["max"].tolist() == [5, 4] and found["mean"].tolist() == [3, 3]
    np.testing.assert_allclose(found["p95"], [3 + 0.9 * 2, 2 + 0.95 * 2])


def test_separation_and_its_draws_are_scikit_learns():
    random = np.random.default_rng(0)
    healthy = np.round(random.normal(size=12), 1)
    anomalous = np.round(random.normal(0.8, size=9), 1)
    weights = bootstrap.draw_weights(1, 12, 20), bootstrap.draw_weights(0, 9, 20)
    values, draws = scan_level.separation(healthy, anomalous, *weights)
    scores, labels = np.concatenate([healthy, anomalous]), np.arange(21) >= 12
    assert values["auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert values["auprc"] == pytest.approx(average_precision_score(labels, scores))
    assert values["prevalence"] == 9 / 21
    for draw, taken in enumerate(np.hstack(weights)):
        drawn = {"sample_weight": taken}
        assert draws["auroc"][draw] == pytest.approx(roc_auc_score(labels, scores, **drawn))
        expected = average_precision_score(labels, scores, **drawn)
        assert draws["auprc"][draw] == pytest.approx(expected)


def test_dice_of_a_scan_is_that_of_its_voxels():
    random = np.random.default_rng(1)
    labels = random.random(300) < 0.2
    values = (labels + random.normal(size=300)).astype(np.float32)
    found = scan_level.dice_of_scan(values, labels, {"0.05": 1.0, "none": 99.0})
    assert found["dice@0.05"] == pytest.approx(f1_score(labels, values > 1))
    assert found["dice@none"] == 0
    assert found["dice"] == pytest.approx(max(f1_score(labels, values >= v) for v in values))
    assert np.isnan(
        list(scan_level.dice_of_scan(values, labels & False, {"a": 0.0}).values())
    ).all()


@given(
    st.lists(st.tuples(st.floats(-10, 10), st.integers(0, 3)), min_size=1, max_size=9),
    st.sampled_from((0.25, 0.5, 0.75)),
)
def test_a_weighted_quantile_is_that_of_repeated_values(pairs, share):
    values, weights = map(np.array, zip(*pairs, strict=True))
    (found,) = scan_level.weighted_quantile(values, weights[None], share)
    if weights.any():
        expected = np.quantile(np.repeat(values, weights), share)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    else:
        assert np.isnan(found)


def test_scans_without_dice_do_not_count():
    values = np.array([np.nan, 0.1, 0.5, 0.9, np.nan])
    weights = np.array([[5, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 3, 2]])
    found, draws = scan_level.over_scans("dice", values, weights)
    assert found == pytest.approx({"dice_q1": 0.3, "dice_median": 0.5, "dice_q3": 0.7})
    np.testing.assert_allclose(draws["dice_median"], [np.nan, 0.5, 0.9])
    found, draws = scan_level.over_scans("dice", np.full(2, np.nan), np.ones((4, 2), int))
    assert np.isnan(list(found.values())).all() and np.isnan(draws["dice_median"]).all()
