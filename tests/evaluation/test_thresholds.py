import numpy as np
import pytest

from cradl_jax.errors import InputError
from cradl_jax.evaluation import metrics, thresholds


def test_thresholds_are_exact_whatever_the_chunks():
    random = np.random.default_rng(0)
    for n, ties in ((1, False), (7, False), (1000, True), (5003, False)):
        values = random.normal(size=n).astype(np.float32)
        values = np.round(values, 1) if ties else values
        ordered = np.sort(values)[::-1]
        for chunks in (1, 3, 50):
            found = thresholds.at_rates(np.array_split(values, chunks), n)
            for rate, threshold in found.items():
                assert threshold == ordered[int(float(rate) * n + 1e-9)]
                assert np.mean(values > threshold) <= float(rate)
    with pytest.raises(InputError, match="finite"):
        thresholds.at_rates([np.array([1.0, np.nan])], 2)
    with pytest.raises(InputError, match="found 2"):
        thresholds.at_rates([np.ones(2)], 3)


def test_false_positives_of_the_healthy_scans_themselves_are_those_of_the_rates():
    random = np.random.default_rng(2)
    values = np.round(random.normal(size=4000), 2).astype(np.float32)
    found = thresholds.at_rates([values], 4000)
    chunks = metrics.in_memory(values, np.zeros(4000, bool))
    points = metrics.operating_points(chunks, tuple(found.values()))
    for rate, threshold in found.items():
        share = metrics.metrics_above(points, threshold)["fpr"]
        assert share <= float(rate) < share + np.mean(values == np.float32(threshold))


def test_percentiles_are_those_of_the_same_height():
    random = np.random.default_rng(1)
    position = random.uniform(0, 1, 20_000).astype(np.float32)
    scores = (10 * position + random.normal(size=20_000)).astype(np.float32)
    usual = thresholds.summarize(scores, position, np.arange(20_000) // 100)
    at = np.array([0.25, 0.55, 0.85], np.float32)
    low, high = thresholds.slice_range(usual, at)
    near = [np.sort(scores[np.abs(position - p) < 0.05]) for p in at]
    for value, ends in zip(near, zip(low, high, strict=True), strict=True):
        np.testing.assert_allclose(np.percentile(value, (5, 95)), ends, atol=0.15)
    tried = np.array([2.5, 6.5, 0.0], np.float32)
    expected = [100 * np.mean(v < t) for v, t in zip(near, tried, strict=True)]
    np.testing.assert_allclose(thresholds.slice_percentiles(usual, tried, at), expected, atol=3)
    assert thresholds.scan_percentile(usual, "max", 1e9) == 100
    assert thresholds.scan_percentile(usual, "max", -1e9) == 0
    assert usual.scans["mean"] == sorted(usual.scans["mean"]) and len(usual.scans["mean"]) == 200
