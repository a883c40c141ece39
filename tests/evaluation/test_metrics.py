import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_recall_curve,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from cradl_jax.errors import InputError
from cradl_jax.evaluation import metrics
from cradl_jax.evaluation.metrics import (
    binary_metrics,
    covariance_spectrum,
    effective_rank,
    in_memory,
    metrics_above,
    metrics_at,
    operating_points,
)


def sklearn_metrics(scores, labels):
    precision, recall, _ = precision_recall_curve(labels, scores)
    # Where both are 0 the harmonic mean is 0.
    dice = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    return {
        "auprc": average_precision_score(labels, scores),
        "auroc": roc_auc_score(labels, scores),
        "dice": dice.max(),
        "fpr95": fpr[np.argmax(tpr >= 0.95)],
        "prevalence": np.mean(labels),
    }


def sklearn_above(scores, labels, threshold):
    above = scores > threshold
    return {
        "dice": f1_score(labels, above, zero_division=0),
        "sensitivity": recall_score(labels, above),
        "fpr": 1 - recall_score(~labels, ~above),
    }


def chunked(scores, labels, sizes):
    cuts = np.cumsum(sizes)
    return lambda: zip(np.split(scores, cuts), np.split(labels, cuts), strict=True)


TIED = [-2.0, -1.0, -0.0, 0.0, 1e-30, 0.5, 1.0, 3e37]


@st.composite
def scores_and_labels(draw):
    size = draw(st.integers(2, 60))
    values = st.sampled_from(TIED) | st.floats(-(2.0**99), 2.0**99, width=32)
    scores = np.array(draw(st.lists(values, min_size=size, max_size=size)), np.float32)
    labels = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    labels[:2] = False, True
    return scores, draw(st.permutations(range(size)).map(lambda order: labels[np.array(order)]))


@settings(deadline=None, max_examples=150)
@given(scores_and_labels())
def test_equals_scikit_learn(data):
    assert binary_metrics(*data) == pytest.approx(sklearn_metrics(*data), abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(scores_and_labels(), st.lists(st.integers(0, 20), max_size=6))
def test_chunks_give_what_the_whole_gives(data, sizes):
    whole, parts = binary_metrics(*data), metrics_at(operating_points(chunked(*data, sizes)))
    assert parts == whole


@settings(deadline=None, max_examples=60)
@given(scores_and_labels(), st.data(), st.lists(st.integers(0, 20), max_size=3))
def test_above_a_threshold_equals_scikit_learn(data, draw, sizes):
    """Thresholds that are scores, that lie between, above and below all of them."""
    scores, labels = data
    wanted = st.sampled_from([*scores.tolist(), *TIED]) | st.floats(-1e31, 1e31)
    at = draw.draw(st.lists(wanted, max_size=5))
    points = operating_points(chunked(*data, sizes), at)
    for threshold in at:
        expected = sklearn_above(scores, labels, threshold)
        assert metrics_above(points, threshold) == pytest.approx(expected, abs=1e-12)
    assert metrics_at(points) == pytest.approx(binary_metrics(*data), abs=1e-12)


@pytest.mark.parametrize("zeros", [0.0, 0.75])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_voxels_equal_scikit_learn_also_when_sorted_in_several_pieces(zeros, dtype):
    rng = np.random.default_rng(0)
    labels = rng.random((50, 64, 64)) < 0.05
    scores = rng.gamma(1, 1, labels.shape) * (1 + labels)
    scores = (scores * (rng.random(labels.shape) > zeros)).astype(np.float16).astype(dtype)
    expected = sklearn_metrics(scores.ravel(), labels.ravel())
    at = (0.0, 0.3, *np.quantile(scores, (0.9, 0.95, 0.99)), float(scores.max()))
    above = [sklearn_above(scores.ravel(), labels.ravel(), dtype(value)) for value in at]
    assert binary_metrics(scores, labels) == pytest.approx(expected, abs=1e-12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "SORTED_AT_ONCE", 30_000)
        patch.setattr(metrics, "BLOCK", 100)
        points = operating_points(in_memory(scores, labels), at)
    assert metrics_at(points) == pytest.approx(expected, abs=1e-12)
    for value, found in zip(at, above, strict=True):
        assert metrics_above(points, value) == pytest.approx(found, abs=1e-12)


def test_worked_by_hand():
    assert binary_metrics(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0])) == pytest.approx(
        {
            "auprc": (1 + 2 / 3) / 2,
            "auroc": 3 / 4,
            "dice": 2 * 2 / (2 + 3),
            "fpr95": 1 / 2,
            "prevalence": 1 / 2,
        }
    )


def test_worked_by_hand_when_all_scores_tie():
    assert binary_metrics(np.zeros(4), np.array([1, 0, 0, 0])) == pytest.approx(
        {"auprc": 0.25, "auroc": 0.5, "dice": 2 / 5, "fpr95": 1, "prevalence": 0.25}
    )


def test_above_a_threshold_worked_by_hand():
    """Whole numbers for scores; what equals a threshold does not lie above it."""
    scores, labels = np.array([5, 4, 3, 2, 1]), np.array([1, 0, 1, 0, 0])
    points = operating_points(in_memory(scores, labels), at=(9, 3, 1.5))
    found = [list(metrics_above(points, threshold).values()) for threshold in (9, 5, 3, 1.5)]
    assert found == pytest.approx(
        np.array([[0, 0, 0], [0, 0, 0], [1 / 2, 1 / 2, 1 / 3], [2 / 3, 1, 2 / 3]])
    )
    with pytest.raises(InputError, match=r"threshold 2\.0: .*operating_points"):
        metrics_above(points, 2.0)


@pytest.mark.parametrize(("label", "known"), [(False, "fpr"), (True, "sensitivity")])
def test_above_a_threshold_one_class_alone_has_its_share_and_nothing_else(label, known):
    points = operating_points(in_memory(np.arange(4.0), np.full(4, label)), at=(2.5,))
    found = metrics_above(points, 2.5)
    assert found.pop(known) == 1 / 4
    assert len(found) == 2 and np.isnan(list(found.values())).all()


def test_fpr95_takes_the_threshold_that_reaches_exactly_95_percent():
    positives = np.arange(20, 0, -1)
    scores = np.concatenate([positives, [1.5, 0.5]])
    labels = np.arange(22) < 20
    assert binary_metrics(scores, labels)["fpr95"] == 0


def test_zero_and_negative_zero_tie():
    assert binary_metrics(np.array([0.0, -0.0]), np.array([True, False]))["auroc"] == 0.5


@pytest.mark.parametrize("label", [False, True])
def test_one_class_alone_has_a_prevalence_and_nothing_else(label):
    found = binary_metrics(np.arange(3.0), np.full(3, label))
    assert found.pop("prevalence") == float(label)
    assert len(found) == 4 and np.isnan(list(found.values())).all()


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.0, np.nan], [0, 1], "1 of 2 scores are not finite"),
        ([np.inf, 0.0], [0, 1], "1 of 2 scores are not finite"),
        ([0.0, 1.0], [0, 1, 1], r"shape \(2,\), labels \(3,\)"),
        ([0.0, 1.0], [0, 4], "expected only 0 and 1"),
        ([], [], "no scores"),
    ],
)
def test_bad_input_is_named(scores, labels, message):
    with pytest.raises(InputError, match=message):
        binary_metrics(np.array(scores), np.array(labels))


def test_chunks_that_run_dry_are_refused():
    once = iter([(np.arange(4.0), np.array([0, 1, 0, 1]))])
    with pytest.raises(InputError, match="4 scores at first and 0 the second time"):
        operating_points(lambda: once)


def test_effective_rank_by_hand():
    """Orthogonal columns of variances in the ratio 3 : 1 have entropy -3/4 ln 3/4 - 1/4 ln 1/4."""
    signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], float)
    z = np.concatenate([signs * [np.sqrt(3), 1], np.zeros((4, 1))], axis=1) + 7
    np.testing.assert_allclose(covariance_spectrum(z), [4, 4 / 3, 0], atol=1e-12)
    assert effective_rank(covariance_spectrum(z)) == pytest.approx(
        np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))
    )


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 8), st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_effective_rank_is_between_one_and_d_and_ignores_scale_and_rotation(size, seed, scale):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(40, size)) * rng.gamma(1, 1, size)
    rotation, _ = np.linalg.qr(rng.normal(size=(size, size)))
    rank = effective_rank(covariance_spectrum(z))
    assert 1 - 1e-9 <= rank <= size + 1e-9
    turned = covariance_spectrum(scale * z @ rotation)
    assert effective_rank(turned) == pytest.approx(rank, rel=1e-6)


def test_effective_rank_of_collapsed_representations():
    assert np.isnan(effective_rank(covariance_spectrum(np.ones((5, 3)))))
    line = covariance_spectrum(np.outer(np.arange(5.0), [1, 2, 3]))
    assert effective_rank(line) == pytest.approx(1)
