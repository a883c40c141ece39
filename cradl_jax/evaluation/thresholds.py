"""Label-free thresholds and percentiles, estimated on healthy validation scans (Section 4.6).

A threshold at a false-positive rate is found on healthy validation scans alone: no annotated
anomaly takes part. What lies above it is called anomalous. `HealthyScores` keeps what is needed of
one slice score in plain values, for JSON.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import FailFast, Field

from cradl_jax.errors import InputError
from cradl_jax.evaluation.extremes import highest
from cradl_jax.storage.schema import Count, Finite, Numbers, Record, with_names

RATES = ("0.01", "0.05", "0.1")
"""False-positive rates that thresholds are kept for."""
BINS = 10  # of height within the brain
PERCENTS = np.arange(101)
AtRates = Annotated[dict[str, Finite], with_names(RATES)]
"""Thresholds by false-positive rate."""
QUANTITIES = ("max", "mean", "p95", *(f"share_above_{rate}" for rate in RATES))
"""What `scan_quantities` says of a scan."""
Curve = Annotated[Numbers, Field(min_length=len(PERCENTS), max_length=len(PERCENTS))]


class HealthyScores(Record):
    """A slice score on healthy validation scans.

    Attributes:
        thresholds: by rate, the score that this share of the slices lies above, see `at_rates`.
        by_height: [BINS][101] percentiles 0, 1, ..., 100 of the slices in ten equal parts of the
            brain's height, from the lowest; a part without slices has those of the nearest one.
        scans: each of `scan_quantities`, [scans] in ascending order.
        n_slices: number of slices.
    """

    thresholds: AtRates
    by_height: Annotated[list[Curve], Field(min_length=BINS, max_length=BINS), FailFast()]
    scans: Annotated[dict[str, Numbers], with_names(QUANTITIES)]
    n_slices: Count


def at_rates(
    chunks: Iterable[np.ndarray], n: int, rates: Sequence[str] = RATES
) -> dict[str, float]:
    """Find for each rate the lowest value that at most this share of all lies above. Exact.

    Args:
        chunks: arrays of any shape, finite, read once; memory is taken for one chunk and twice the
            share of all values that the highest rate names.
        n: number of values in all of them, one or more.
        rates: shares in [0, 1).

    Raises:
        InputError: a value is not finite, or there are others than `n`.
    """
    ranks = {rate: int(float(rate) * n + 1e-9) for rate in rates}  # values that may lie above
    descending, seen = highest(chunks, max(ranks.values()) + 1)
    if seen != n or not n:
        raise InputError(
            f"healthy validation scans: expected {n or 'one or more'} scores, found {seen}; "
            "preprocess and score them again"
        )
    return {rate: float(descending[rank]) for rate, rank in ranks.items()}


def summarize(scores: np.ndarray, position: np.ndarray, scans: np.ndarray) -> HealthyScores:
    """Summarize a slice score on healthy validation slices.

    Args:
        scores: [n] of healthy validation slices.
        position: [n] in [0, 1], height within the brain.
        scans: [n] number of the slice's scan.

    Raises:
        InputError: there is no slice, or a score is not finite.
    """
    at_rate = at_rates([scores], len(scores))
    bins = np.minimum((position * BINS).astype(int), BINS - 1)
    filled = np.unique(bins)
    by_height = [
        np.percentile(scores[bins == filled[np.abs(filled - number).argmin()]], PERCENTS).tolist()
        for number in range(BINS)
    ]
    rows = [scan_quantities(scores[scans == scan], at_rate) for scan in np.unique(scans)]
    of_scans = {name: sorted(row[name] for row in rows) for name in rows[0]}
    return HealthyScores(
        thresholds=at_rate, by_height=by_height, scans=of_scans, n_slices=len(scores)
    )


def scan_quantities(scores: np.ndarray, above: Mapping[str, float]) -> dict[str, float]:
    """Return what the slice scores [n] of a scan say of the whole.

    `max`, `mean`, `p95` (95th percentile), and for each rate in `above` the share of slices above
    its threshold, `share_above_<rate>`.
    """
    quantities = {"max": scores.max(), "mean": scores.mean(), "p95": np.percentile(scores, 95)}
    shares = {f"share_above_{rate}": (scores > value).mean() for rate, value in above.items()}
    return {name: float(value) for name, value in (quantities | shares).items()}


def slice_percentiles(
    healthy: HealthyScores, scores: np.ndarray, position: np.ndarray
) -> np.ndarray:
    """Return percentiles [n], 0 to 100, of scores [n] among healthy slices at `position` [n]."""
    curves = _curves(healthy, position)
    pairs = zip(scores, curves, strict=True)
    return np.array([np.interp(score, curve, PERCENTS) for score, curve in pairs])


def slice_range(
    healthy: HealthyScores, position: np.ndarray, percents: tuple[int, int] = (5, 95)
) -> tuple[np.ndarray, np.ndarray]:
    """Return two percentiles, [n] each, of healthy slices' scores at heights `position` [n]."""
    low, high = _curves(healthy, position).T[list(percents)]
    return low, high


def scan_percentile(healthy: HealthyScores, name: str, value: float) -> float:
    """Return the percentile, 0 to 100, of one of `scan_quantities` among healthy scans.

    The share of scans below, ties counting one half.
    """
    values = np.asarray(healthy.scans[name])
    return float(100 * (np.mean(values < value) + np.mean(values == value) / 2))


def _curves(healthy: HealthyScores, position: np.ndarray) -> np.ndarray:
    """Return percentiles [n, 101] at each height, linear between the middles of the ten parts."""
    table = np.asarray(healthy.by_height)
    at = np.clip(np.asarray(position, float) * BINS - 0.5, 0, BINS - 1)
    lower = np.minimum(at.astype(int), BINS - 2)
    share = (at - lower)[:, None]
    return (1 - share) * table[lower] + share * table[lower + 1]
