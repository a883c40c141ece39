"""Metrics of whole scans, beyond the paper: which scan is anomalous, and Dice of each scan.

A scan's score is one of `SCAN_SCORES` of its slices' scores. Healthy test scans are compared with
anomalous ones, which the paper's Section 5.4 asks for.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from cradl_jax.evaluation import bootstrap, metrics
from cradl_jax.evaluation.thresholds import scan_quantities

SCAN_SCORES = ("max", "mean", "p95")
"""Of the slices' scores: the highest, their mean, their 95th percentile (`scan_quantities`)."""
GIVEN = "given"
"""Beside these, a score of the scan itself, which a foreign method may have."""
QUARTILES = {"q1": 0.25, "median": 0.5, "q3": 0.75}

Measures = tuple[dict[str, float], dict[str, np.ndarray]]
"""Values of metrics, and bootstrap draws [draws] of those that have an interval, by name."""


def scan_scores(scores: np.ndarray, scans: np.ndarray) -> dict[str, np.ndarray]:
    """Return each of `SCAN_SCORES` of S scans, [S] each, in ascending order of their numbers.

    Args:
        scores: [n] of slices.
        scans: [n] number of the slice's scan.
    """
    rows = [scan_quantities(scores[scans == scan], {}) for scan in np.unique(scans)]
    return {name: np.array([row[name] for row in rows]) for name in SCAN_SCORES}


def separation(
    healthy: np.ndarray,
    anomalous: np.ndarray,
    healthy_weights: np.ndarray,
    anomalous_weights: np.ndarray,
) -> Measures:
    """Return AUROC, AUPRC and the prevalence of anomalous scans among healthy ones.

    Args:
        healthy: score of each healthy scan, [H], one or more.
        anomalous: score of each anomalous scan, [A].
        healthy_weights: [draws, H], see `bootstrap.draw_weights`.
        anomalous_weights: [draws, A].

    Raises:
        InputError: a score is not finite.
    """
    scores = np.concatenate([healthy, anomalous])
    labels = np.arange(len(scores)) >= len(healthy)
    points = metrics.operating_points(metrics.in_memory(scores, labels))
    values = metrics.metrics_at(points)
    counts = bootstrap.count_by_scan(
        [(scores, labels, np.arange(len(scores)))], bootstrap.bin_edges(points), len(scores)
    )
    draws = bootstrap.weighted_metrics(counts, np.hstack([healthy_weights, anomalous_weights]))
    return {name: values[name] for name in ("auroc", "auprc", "prevalence")}, draws


def dice_of_scan(
    values: np.ndarray, labels: np.ndarray, thresholds: Mapping[str, float]
) -> dict[str, float]:
    """Return a scan's best Dice, `dice`, and that above each threshold, `dice@<rate>`.

    Args:
        values: [n] of voxels.
        labels: [n] bool, whether they are annotated; Dice is NaN if none is, or all are.
        thresholds: by rate.
    """
    anomalous, normal = np.sort(values[labels]), np.sort(values[~labels])
    if not anomalous.size or not normal.size:
        return dict.fromkeys(("dice", *(f"dice@{rate}" for rate in thresholds)), np.nan)

    def dice(at: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
        true, false = (len(of) - np.searchsorted(of, at, side) for of in (anomalous, normal))
        return 2 * true / (len(anomalous) + true + false)

    limits = np.array(list(thresholds.values()), values.dtype)
    above = zip(thresholds, dice(limits, "right"), strict=True)
    best = dice(anomalous, "left").max()  # of all thresholds, it is one of these that reaches it
    return {"dice": float(best), **{f"dice@{rate}": float(one) for rate, one in above}}


def over_scans(name: str, values: np.ndarray, weights: np.ndarray) -> Measures:
    """Return median and quartiles over scans, `<name>_median` and so on, and the median's draws.

    Args:
        name: of what was measured of each scan.
        values: [S], NaN of those where it is not defined, which do not count.
        weights: [draws, S], see `bootstrap.draw_weights`.
    """
    defined = ~np.isnan(values)
    quantiles = {
        f"{name}_{label}": float(np.quantile(values[defined], q)) if defined.any() else np.nan
        for label, q in QUARTILES.items()
    }
    median = weighted_quantile(values[defined], weights[:, defined], QUARTILES["median"])
    return quantiles, {f"{name}_median": median}


def weighted_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> np.ndarray:
    """Return a quantile [draws] of values [S], each taken `weights` [draws, S] times.

    Linear between neighbouring values, as numpy's; NaN for a draw without any.
    """
    if not values.size:
        return np.full(len(weights), np.nan)
    order = np.argsort(values)
    ascending, reached = values[order], np.cumsum(weights[:, order], axis=1)
    total = reached[:, -1]
    place = share * np.maximum(total - 1, 0)

    def at(rank: np.ndarray) -> np.ndarray:
        return ascending[np.minimum((reached <= rank[:, None]).sum(1), values.size - 1)]

    low, high = at(np.floor(place)), at(np.ceil(place))
    return np.where(total > 0, low + (place - np.floor(place)) * (high - low), np.nan)
