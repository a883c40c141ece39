"""Lesion-wise metrics against counts worked by hand, scipy's labels, and a second FROC."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cradl_jax.errors import InputError
from cradl_jax.evaluation import bootstrap, lesions

ALL = np.ones((3, 3, 3))


def test_lesions_touch_at_corners_and_specks_are_left_out():
    mask = np.zeros((4, 6, 6), bool)
    mask[0, :2, :2] = True
    mask[1, 2, 2:5] = True  # touches the first at a corner: 7 voxels
    mask[3, 5, :5] = True  # 5 voxels, a speck
    mask[2:4, 0, 3:6] = True  # 6 voxels
    found = lesions.find_lesions(mask)
    assert sorted(found.sizes) == [6, 7]
    heat = np.zeros(mask.shape, np.float32)
    heat[1, 2, 4], heat[3, 5, 0], heat[2, 0, 3] = 3, 9, 2
    highest = lesions.peaks(heat, found)
    assert dict(zip(found.sizes, highest, strict=True)) == {7: 3, 6: 2}
    nothing = lesions.find_lesions(mask & False)
    assert not len(nothing.sizes) and not len(lesions.peaks(heat, nothing))
    assert not len(lesions.find_lesions(np.arange(8).reshape(2, 2, 2) < 3).sizes)  # a speck alone


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from((1, 4, 100)))
def test_findings_are_those_that_scipy_labels(seed, steps):
    """Above every threshold, ties and the edges of the volume included."""
    random = np.random.default_rng(seed)
    shape = random.integers(1, 9, 3)
    heat = np.round(random.random(shape) * steps).astype(np.float32)
    brain = random.random(shape) < 0.8
    thresholds = np.unique([*random.choice(heat.ravel(), 5), heat.max()])[::-1]
    counts, marked = lesions.count_findings(heat, brain, thresholds)
    for threshold, count, voxels in zip(thresholds, counts, marked, strict=True):
        above = brain & (heat > threshold)
        assert (count, voxels) == (ndimage.label(above, ALL)[1], above.sum())


def smooth(seed, shape=(12, 20, 20)):
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, 1.2).astype(np.float32)


def test_the_sweep_spans_the_highest_tenth_of_the_healthy_brains():
    brain = np.zeros((12, 20, 20), bool)
    brain[2:10, 3:17, 3:17] = True
    scans = [(smooth(seed), brain) for seed in range(3)]
    found = lesions.sweep(lambda: iter(scans), 3 * brain.sum())
    values = np.sort(np.concatenate([heat[brain] for heat, _ in scans]))[::-1]
    assert found.thresholds[0] == values[0]
    assert found.thresholds[-1] == values[len(values) // 10]
    assert (np.diff(found.thresholds) < 0).all() and found.counts.shape == found.marked.shape
    assert not found.counts[:, 0].any()
    assert found.marked[:, -1].sum() == (values > found.thresholds[-1]).sum()
    with pytest.raises(InputError, match="expected finite scores and heatmaps, found 1568 of 1568"):
        lesions.sweep(lambda: iter([(np.full(brain.shape, np.nan), brain)]), brain.sum())


def second_froc(healthy, brain, anomalous, masks, thresholds):
    """Return the sensitivity at each rate, by labels above one threshold after the other."""
    false = [np.mean([ndimage.label(brain & (h > t), ALL)[1] for h in healthy]) for t in thresholds]
    result = {}
    for rate in lesions.RATES:
        allowed = next((at for at, n in enumerate(false) if n > rate), len(false)) - 1
        hit, total = 0, 0
        for heat, mask in zip(anomalous, masks, strict=True):
            labels, count = ndimage.label(mask, ALL)
            above = brain & (heat > thresholds[allowed])
            for number in range(1, count + 1):
                if (labels == number).sum() > 5:
                    total += 1
                    hit += bool((above & (labels == number)).any())
        result[rate] = hit / total
    return result


def test_froc_is_that_of_a_second_implementation():
    brain = np.zeros((12, 20, 20), bool)
    brain[1:11, 2:18, 2:18] = True
    healthy = [smooth(seed) for seed in range(4)]
    masks = [brain & (smooth(seed) > 0.22) for seed in range(10, 16)]
    heats = [smooth(20 + at) + np.float32(0.06) * mask for at, mask in enumerate(masks)]
    findings = lesions.sweep(lambda: ((heat, brain) for heat in healthy), 4 * brain.sum())
    found = [lesions.find_lesions(mask) for mask in masks]
    scan = np.repeat(np.arange(6), [len(one.sizes) for one in found])
    highest = np.concatenate([lesions.peaks(h, one) for h, one in zip(heats, found, strict=True)])
    sizes = np.concatenate([one.sizes for one in found])
    weights = bootstrap.draw_weights(1, 4, 30), bootstrap.draw_weights(0, 6, 30)
    values, draws = lesions.froc(findings, highest, scan, sizes * 0.1, *weights)
    expected = second_froc(healthy, brain, heats, masks, findings.thresholds)
    assert len(set(expected.values())) > 2, "the rates are told apart"
    for rate, share in expected.items():
        assert values[f"sensitivity@{rate:g}fp"] == pytest.approx(share)
    for draw in range(5):  # as if the scans that were drawn were all there are
        drawn = [np.repeat(np.arange(n), w[draw]) for n, w in zip((4, 6), weights, strict=True)]
        again = second_froc(
            [healthy[at] for at in drawn[0]], brain, [heats[at] for at in drawn[1]],
            [masks[at] for at in drawn[1]], findings.thresholds,
        )  # fmt: skip
        for rate, share in again.items():
            assert draws[f"sensitivity@{rate:g}fp"][draw] == pytest.approx(share)


def test_froc_by_hand_with_quarters_by_size():
    """One finding appears, then a second and a third, which merge: merged ones do not count."""
    thresholds = np.array([9.0, 5, 3, 1])
    counts, marked = np.array([[0, 1, 3, 1], [0, 1, 2, 1]]), np.array([[0, 1, 4, 9], [0, 1, 2, 9]])
    findings = lesions.Findings(thresholds, counts, marked)
    highest, sizes = np.array([2.0, 4, 6, 10, 4]), np.array([1.0, 2, 3, 4, 5])
    weights = np.array([[1, 1], [2, 0], [0, 0]])
    values, draws = lesions.froc(
        findings, highest, np.array([0, 0, 0, 1, 1]), sizes, *[weights] * 2
    )
    assert [values[f"sensitivity@{rate}fp"] for rate in ("0.5", "1", "2", "4")] == [
        0.2,
        0.4,
        0.4,
        1,
    ]
    assert [values[f"ml@{rate}fp"] for rate in ("0.5", "1", "2", "4")] == [0, 1, 1, 9]
    assert [values[f"lesions_q{number}"] for number in (1, 2, 3, 4)] == [2, 1, 1, 1]
    assert [values[f"largest_ml_q{number}"] for number in (1, 2, 3, 4)] == [2, 3, 4, 5]
    assert [values[f"sensitivity@1fp_q{number}"] for number in (1, 2, 3, 4)] == [0, 1, 1, 0]
    np.testing.assert_allclose(draws["sensitivity@1fp"], [0.4, 1 / 3, np.nan])
    np.testing.assert_allclose(draws["sensitivity@4fp"], [1, 1, np.nan])
    np.testing.assert_allclose(draws["ml@1fp"], [1, 1, np.nan])


def test_constant_maps_and_no_lesions_have_no_false_answer():
    brain = np.full((3, 4, 4), True)
    flat = np.ones(brain.shape, np.float32)
    findings = lesions.sweep(lambda: iter([(flat, brain)] * 2), 2 * brain.sum())
    assert findings.thresholds.tolist() == [1] and not findings.counts.any()
    weights = bootstrap.draw_weights(0, 2, 10)
    values, _ = lesions.froc(findings, np.ones(1), np.zeros(1, int), np.ones(1), *[weights] * 2)
    assert values["sensitivity@4fp"] == 0 and values["ml@4fp"] == 0
    values, draws = lesions.froc(findings, *np.zeros((3, 0)), *[weights] * 2)
    assert values["lesions"] == 0 and np.isnan(values["sensitivity@1fp"])
    assert np.isnan(draws["sensitivity@1fp"]).all()
