import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from cradl_jax.errors import InputError
from cradl_jax.evaluation import metrics
from cradl_jax.evaluation.bootstrap import (
    ScanCounts,
    bin_edges,
    count_by_scan,
    draw_weights,
    interval,
    paired,
    weighted_metrics,
)


def edges_of(scores, labels, bins=4096):
    return bin_edges(metrics.operating_points(metrics.in_memory(scores, labels)), bins)


def counted(scores, labels, scan, bins=4096):
    edges = edges_of(scores, labels, bins)
    return count_by_scan([(scores, labels, scan)], edges, int(scan.max()) + 1)


def sklearn_of_resample(scores, labels, scan, weights):
    """scikit-learn on the slices or voxels of a resample, written out one by one."""
    drawn = np.repeat(np.arange(len(weights)), weights)
    rows = np.concatenate([np.flatnonzero(scan == index) for index in drawn])
    scores, labels = scores[rows].ravel(), labels[rows].ravel()
    return average_precision_score(labels, scores), roc_auc_score(labels, scores)


def cohort(seed, scans, slices=30, gain=1.0, methods=1):
    """Slices [n] of scans that differ in burden and in level; scores [methods, n]."""
    rng = np.random.default_rng(seed)
    scan = np.repeat(np.arange(scans), slices)
    labels = rng.random(scan.size) < rng.beta(1, 3, scans)[scan]
    level = rng.normal(size=(methods, scans))[:, scan]
    gain = np.reshape(gain, (-1, 1))
    return rng.normal(size=(methods, scan.size)) + gain * labels + level, labels, scan


@st.composite
def small_data(draw):
    size = draw(st.integers(2, 40))
    values = st.sampled_from([-1.0, -0.0, 0.0, 1e-30, 0.5, 3e37]) | st.floats(-9, 9, width=32)
    scores = np.array(draw(st.lists(values, min_size=size, max_size=size)), np.float32)
    labels = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    scan = np.array(draw(st.lists(st.integers(0, 4), min_size=size, max_size=size)))
    labels[:2] = False, True
    return scores, labels, scan


# --- exact -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(small_data(), st.integers(0, 1000))
def test_equals_scikit_learn_on_resampled_slices(data, seed):
    scores, labels, scan = data
    counts = counted(*data)
    weights = draw_weights(seed, len(counts.positives), 5) if scan.max() else np.ones((1, 1), int)
    found = weighted_metrics(counts, weights)
    for draw, row in enumerate(weights):
        resampled = labels[np.isin(scan, np.flatnonzero(row))]
        if len(set(resampled)) == 2:
            expected = sklearn_of_resample(scores, labels, scan, row)
            assert [m[draw] for m in found.values()] == pytest.approx(expected, abs=1e-12)
        else:
            assert np.isnan([m[draw] for m in found.values()]).all()


def test_weights_need_not_be_whole_numbers():
    (scores,), labels, scan = cohort(0, scans=6)
    weights = np.random.default_rng(0).dirichlet(np.ones(6), 3)
    found = weighted_metrics(counted(scores, labels, scan), weights)
    for draw, row in enumerate(weights):
        expected = (
            average_precision_score(labels, scores, sample_weight=row[scan]),
            roc_auc_score(labels, scores, sample_weight=row[scan]),
        )
        assert [m[draw] for m in found.values()] == pytest.approx(expected, abs=1e-12)


def test_ones_give_the_metrics_of_the_scans_themselves():
    (scores,), labels, scan = cohort(0, scans=40)
    found = weighted_metrics(counted(scores, labels, scan), np.ones((1, 40)))
    expected = metrics.binary_metrics(scores, labels)
    for name, values in found.items():
        assert values == pytest.approx([expected[name]], abs=1e-12)


def test_blocks_of_bins_change_nothing(monkeypatch):
    (scores,), labels, scan = cohort(0, scans=10)
    counts, weights = counted(scores, labels, scan), draw_weights(0, 10, 50)
    whole = weighted_metrics(counts, weights)
    monkeypatch.setattr("cradl_jax.evaluation.bootstrap.VALUES", 350)
    parts = weighted_metrics(counts, weights)
    for name in whole:
        assert parts[name] == pytest.approx(whole[name], abs=1e-12)


# --- binned ----------------------------------------------------------------------------------


def voxel_data(prevalence=0.02):
    rng = np.random.default_rng(0)
    scan = np.repeat(np.arange(10), 20)
    labels = rng.random((200, 32, 32)) < prevalence * rng.gamma(1, 1, 10)[scan, None, None]
    scores = (
        rng.gamma(1, 1, labels.shape) * (1 + 2 * labels) * rng.gamma(9, 1, 10)[scan, None, None]
    )
    outside = rng.random(labels.shape) < 0.4
    return np.where(outside, 0, scores).astype(np.float32), labels, scan


@pytest.mark.parametrize("prevalence", [0.002, 0.05])
@pytest.mark.parametrize("bins", [32, 256, 4096])
def test_few_bins_are_off_by_less_than_one_bin(bins, prevalence):
    scores, labels, scan = voxel_data(prevalence)
    counts, weights = counted(scores, labels, scan, bins), draw_weights(1, 10, 4)
    found = weighted_metrics(counts, weights)
    of_draw = weights @ counts.positives
    share = (of_draw[:, ::2].max(axis=1) / of_draw.sum(axis=1)).max()
    assert share < 2.5 / bins
    for draw, row in enumerate(weights):
        auprc, auroc = sklearn_of_resample(scores, labels, scan, row)
        assert found["auroc"][draw] == pytest.approx(auroc, abs=share / 2 + 1e-12)
        assert found["auprc"][draw] == pytest.approx(auprc, abs=1.5 / bins)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 9)), min_size=1), st.integers(1, 9))
def test_gaps_between_edges_hold_less_than_their_share_of_positives(found, bins):
    values, repeats = np.array(found).T
    scores = np.repeat(values, repeats).astype(float)
    edges = edges_of(scores, np.ones(scores.size, bool), bins)
    assert len(edges) <= bins and edges[0] == scores.min() and (np.diff(edges) > 0).all()
    counts = count_by_scan([(scores, scores == scores, np.zeros(scores.size, int))], edges, 1)
    assert (counts.positives[0, ::2] * bins < scores.size).all()
    if len(set(values)) <= bins:
        assert set(edges) == set(scores)


@pytest.mark.parametrize("bins", [5, 6])
def test_thresholds_asked_for_are_no_edges(bins):
    scores, labels = np.arange(20.0), np.arange(20) % 4 == 3
    points = metrics.operating_points(metrics.in_memory(scores, labels), at=(-1.0, 6.5, 8.0, 30.0))
    assert bin_edges(points, bins).tolist() == [3, 7, 11, 15, 19]


def test_bins_are_those_of_the_docstring():
    scores = np.array([9.0, 5.0, 4.0, 2.0, 1.0, 0.0])
    labels = np.array([False, True, False, True, False, False])
    counts = count_by_scan(
        [(scores, labels, np.array([0, 0, 1, 1, 0, 1]))], np.array([2.0, 5.0]), 3
    )
    assert counts.positives.tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0] * 5]
    assert counts.negatives.tolist() == [[1, 0, 0, 0, 1], [0, 0, 1, 0, 1], [0] * 5]
    assert counts.positives.dtype == counts.negatives.dtype == np.int64


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 25), max_size=6), st.randoms(use_true_random=False))
def test_any_blocks_in_any_order_give_the_same_counts(sizes, random):
    rng = np.random.default_rng(0)
    scan = rng.integers(0, 4, 60)
    scores = rng.integers(0, 30, (60, 3, 2)).astype(np.float32)
    labels = rng.random(scores.shape) < 0.3
    edges = edges_of(scores, labels, 8)
    whole = count_by_scan([(scores, labels, scan)], edges, 4)
    order = random.sample(range(60), 60)
    blocks = zip(
        *(np.split(array[order], np.cumsum(sizes)) for array in (scores, labels, scan)), strict=True
    )
    parts = count_by_scan(blocks, edges, 4)
    assert (parts.positives == whole.positives).all() and (parts.negatives == whole.negatives).all()
    assert whole.positives.sum() == labels.sum() and whole.negatives.sum() == (~labels).sum()


def test_memory_stays_bounded_at_full_size():
    rng = np.random.default_rng(0)
    shape = (266, 2 * 4096 + 1)
    counts = ScanCounts(rng.integers(0, 5, shape), rng.integers(0, 200, shape))
    weights = draw_weights(0, 266)
    tracemalloc.start()
    weighted_metrics(counts, weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


# --- resamples, intervals, comparisons -------------------------------------------------------


def test_weights_follow_from_the_seed_alone_and_draw_as_many_scans_as_there_are():
    weights = draw_weights(3, 20)
    assert weights.shape == (2000, 20) and (weights.sum(axis=1) == 20).all()
    assert (weights == draw_weights(3, 20)).all() and (weights != draw_weights(4, 20)).any()
    assert weights.mean(axis=0) == pytest.approx(np.ones(20), abs=0.1)
    assert weights.var() == pytest.approx(1 - 1 / 20, rel=0.05)


def test_interval_is_that_of_the_percentiles_without_undefined_draws():
    values = np.append(np.arange(1001.0), np.nan)
    assert interval(values) == pytest.approx((25, 975))
    assert interval(values, 0.5) == pytest.approx((250, 750))
    assert np.isnan(interval(np.full(3, np.nan))).all()


def test_95_percent_intervals_hold_the_truth_about_as_often_and_only_if_scans_are_drawn():
    (scores,), labels, _ = cohort(0, scans=40_000)
    truth = metrics.binary_metrics(scores, labels)
    held = {"auprc": [], "auroc": []}
    held_by_slices = []
    for seed in range(200):
        (scores,), labels, scan = cohort((1, seed), scans=40)
        edges = edges_of(scores, labels, 100)
        counts = count_by_scan([(scores, labels, scan)], edges, 40)
        for name, values in weighted_metrics(counts, draw_weights(seed, 40, 400)).items():
            low, high = interval(values)
            held[name].append(low <= truth[name] <= high)
        if seed < 50:
            index = np.arange(scan.size)
            counts = count_by_scan([(scores, labels, index)], edges, scan.size)
            low, high = interval(
                weighted_metrics(counts, draw_weights(seed, scan.size, 100))["auroc"]
            )
            held_by_slices.append(low <= truth["auroc"] <= high)
    assert 0.88 <= np.mean(held["auprc"]) <= 0.99
    assert 0.88 <= np.mean(held["auroc"]) <= 0.99
    assert np.mean(held_by_slices) < 0.85


def compared(seed, gains):
    scores, labels, scan = cohort(seed, scans=40, gain=gains, methods=2)
    weights = draw_weights(0, 40, 400)
    return paired(
        *(weighted_metrics(counted(s, labels, scan, 100), weights)["auroc"] for s in scores)
    )


def test_p_is_uniform_for_equal_methods_and_small_for_a_better_one():
    equal = np.array([compared((2, seed), (1, 1)).p for seed in range(150)])
    assert 0.4 < equal.mean() < 0.6
    assert np.mean(equal < 0.05) < 0.13 and 0.35 < np.mean(equal < 0.5) < 0.65
    better = compared(3, (2.5, 1))
    assert better.p == pytest.approx(2 / 401)
    assert 0 < better.low < better.mean < better.high
    worse = compared(3, (1, 2.5))
    assert worse.p == pytest.approx(2 / 401) and worse.high < 0


def test_pairing_removes_what_is_common_to_both_methods():
    (a,), labels, scan = cohort(0, scans=40)
    b = a + 0.05 * np.random.default_rng(1).normal(size=a.size)
    weights = draw_weights(0, 40)
    a, b = (weighted_metrics(counted(s, labels, scan), weights)["auprc"] for s in (a, b))
    difference, alone = paired(a, b), interval(a)
    assert difference.high - difference.low < 0.2 * (alone[1] - alone[0])
    assert difference.mean == pytest.approx(a.mean() - b.mean())


def test_paired_worked_by_hand():
    difference = paired(np.array([3.0, 1, 2, 5, np.nan]), np.array([1.0, 2, 2, 1, 1]))
    assert difference.mean == pytest.approx(5 / 4)
    assert difference.p == 1.0  # d = 2, -1, 0, 4: 2 (2 + 1) / (4 + 1), capped
    assert paired(np.ones(9), np.zeros(9)).p == pytest.approx(2 / 10)
    assert paired(np.ones(9), np.ones(9)) == (0, 0, 0, 1)
    assert np.isnan(paired(np.full(3, np.nan), np.ones(3))).all()


# --- degenerate ------------------------------------------------------------------------------


def test_a_single_scan_has_metrics_but_no_interval():
    (scores,), labels, scan = cohort(0, scans=1)
    labels[0] = True
    counts = counted(scores, labels, scan)
    assert np.isfinite(weighted_metrics(counts, np.ones((1, 1)))["auprc"]).all()
    values = weighted_metrics(counts, draw_weights(0, 1))["auprc"]
    assert values.shape == (2000,) and np.isnan(interval(values)).all()
    assert np.isnan(paired(values, values)).all()


def test_constant_scores_are_chance():
    labels = np.arange(40) % 4 == 0
    found = weighted_metrics(counted(np.zeros(40), labels, np.arange(40) // 8), np.ones((1, 5)))
    assert found["auprc"] == pytest.approx([0.25]) and found["auroc"] == pytest.approx([0.5])


@pytest.mark.parametrize("label", [False, True])
def test_one_class_alone_has_no_metrics(label):
    counts = counted(np.arange(6.0), np.full(6, label), np.arange(6) // 2)
    found = weighted_metrics(counts, draw_weights(0, 3, 7))
    assert np.shape(found["auprc"]) == (7,) and np.isnan(list(found.values())).all()


def test_no_blocks_and_no_draws():
    counts = count_by_scan([], np.array([1.0]), 4)
    assert np.isnan(weighted_metrics(counts, draw_weights(0, 4, 3))["auprc"]).all()
    assert weighted_metrics(counts, draw_weights(0, 4, 0))["auroc"].shape == (0,)


GOOD = {"scores": np.zeros(3), "labels": np.ones(3, bool), "scan": np.zeros(3, int)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.ones(2, bool)}, "one shape"),
        ({"scan": np.zeros(2, int)}, "a scan for each"),
        ({"labels": np.ones(3)}, "expected bool"),
        ({"scores": np.array([0, np.nan, np.inf])}, "2 scores are not finite"),
        ({"scan": np.array([0, 1, 2])}, r"integers in \[0, 2\)"),
        ({"scan": np.array([0, -1, 0])}, r"integers in \[0, 2\)"),
        ({"scan": np.zeros(3)}, "integers"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        count_by_scan([tuple((GOOD | change).values())], np.array([0.0]), 2)


def test_other_faults_are_refused():
    with pytest.raises(InputError, match="ascend"):
        count_by_scan([], np.array([1.0, 0.0]), 2)
    with pytest.raises(InputError, match="at least 1 bin"):
        edges_of(np.arange(3.0), np.ones(3, bool), 0)
    with pytest.raises(InputError, match="at least one scan"):
        draw_weights(0, 0)
    with pytest.raises(InputError, match="same draw_weights"):
        paired(np.zeros(3), np.zeros(2))
    counts = count_by_scan([], np.array([1.0]), 4)
    with pytest.raises(InputError, match=r"\[draws, 4\]"):
        weighted_metrics(counts, np.ones((2, 3)))
