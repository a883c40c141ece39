"""What is usual among healthy scans: thresholds without labels, and percentiles (Section 4.6).

A threshold at a false-positive rate is found on healthy validation scans alone: no annotated
anomaly takes part. What lies above it is called anomalous. `HealthyScores` keeps what is needed of
one slice score in plain values, for JSON.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cradl_jax.errors import InputError
from cradl_jax.prediction.input_qc import REFERENCE, Reference
from cradl_jax.storage.schema import array, image_size, named, number, optional, table

FILE = "thresholds.json"
RATES = ("0.01", "0.05", "0.1")
"""False-positive rates that thresholds are kept for."""
BINS = 10  # of height within the brain
PERCENTS = np.arange(101)


class HealthyScores(NamedTuple):
    """A slice score on healthy validation scans.

    Attributes:
        thresholds: by rate, the score that this share of the slices lies above, see `at_rates`.
        by_height: [BINS][101] percentiles 0, 1, ..., 100 of the slices in ten equal parts of the
            brain's height, from the lowest; a part without slices has those of the nearest one.
        scans: each of `scan_quantities`, [scans] in ascending order.
        n_slices: number of slices.
    """

    thresholds: Mapping[str, float]
    by_height: Sequence[Sequence[float]]
    scans: Mapping[str, Sequence[float]]
    n_slices: int


class Thresholds(NamedTuple):
    """The content of thresholds.json.

    Attributes:
        slicing: how a scan is sliced: as those of the first anomalous data set, at the training
            scans' pixel size.
        slices: what is usual of each slice score.
        heatmaps: thresholds of each post-processed heatmap by rate.
        training: what is usual among the training scans.
    """

    slicing: Mapping[str, Any]
    slices: Mapping[str, HealthyScores]
    heatmaps: Mapping[str, Mapping[str, float]]
    training: Reference


AT_RATES = table(dict.fromkeys(RATES, number(-math.inf)))
QUANTITIES = ("max", "mean", "p95", *(f"share_above_{rate}" for rate in RATES))
CONTENT = table(
    {
        "slicing": table(
            {
                "size": image_size,
                "offset": number(0, whole=True),
                "slice_spacing_mm": optional(number(0, above=True)),
                "pixel_mm": number(0, above=True),
            }
        ),
        "slices": named(
            table(
                {
                    "thresholds": AT_RATES,
                    "by_height": array(BINS, len(PERCENTS)),
                    "scans": table(dict.fromkeys(QUANTITIES, array(None))),
                    "n_slices": number(1, whole=True),
                }
            )
        ),
        "heatmaps": named(AT_RATES),
        "training": REFERENCE,
    }
)
"""The rule for the plain values of `Thresholds`."""


def plain(known: Thresholds) -> dict[str, Any]:
    """Plain values, for JSON."""
    slices = {name: usual._asdict() for name, usual in known.slices.items()}
    return known._asdict() | {"slices": slices, "training": known.training._asdict()}


def from_plain(content: Mapping[str, Any]) -> Thresholds:
    """From the values that `plain` gave.

    Raises:
        ValueError: they are others, or lie beyond what they can be.
    """
    if fault := CONTENT(content):
        raise ValueError(fault)
    slices = {name: HealthyScores(**usual) for name, usual in content["slices"].items()}
    training = Reference(**content["training"])
    return Thresholds(content["slicing"], slices, content["heatmaps"], training)


def at_rates(chunks: Iterable[np.ndarray], n: int) -> dict[str, float]:
    """For each of `RATES` the lowest value that at most this share of all values lies above. Exact.

    Args:
        chunks: arrays of any shape, finite, read once; memory is taken for twice the highest
            tenth of all values and one chunk.
        n: number of values in all of them, one or more.

    Raises:
        InputError: a value is not finite, or there are others than `n`.
    """
    ranks = {rate: int(float(rate) * n + 1e-9) for rate in RATES}  # values that may lie above
    wanted = max(ranks.values()) + 1
    kept, lowest, seen = np.empty(0, np.float32), -np.inf, 0
    for chunk in chunks:
        values = np.ravel(chunk)
        if not np.isfinite(values).all():
            raise InputError(
                f"healthy validation scans: expected finite scores, found "
                f"{np.count_nonzero(~np.isfinite(values))} of {values.size} that are not; a "
                "diverged training or an overflow in the density gives such scores"
            )
        seen += values.size
        kept = np.concatenate([kept, values[values > lowest]])
        if kept.size >= wanted:
            kept = np.partition(kept, kept.size - wanted)[kept.size - wanted :]
            lowest = kept[0]
    if seen != n or not n:
        raise InputError(
            f"healthy validation scans: expected {n or 'one or more'} scores, found {seen}; "
            "preprocess and score them again"
        )
    kept = np.sort(kept)[::-1]
    return {rate: float(kept[rank]) for rate, rank in ranks.items()}


def summarize(scores: np.ndarray, position: np.ndarray, scans: np.ndarray) -> HealthyScores:
    """What is usual of a slice score.

    Args:
        scores: [n] of healthy validation slices.
        position: [n] in [0, 1], height within the brain.
        scans: [n] number of the slice's scan.

    Raises:
        InputError: there is no slice, or a score is not finite.
    """
    found = at_rates([scores], len(scores))
    bins = np.minimum((position * BINS).astype(int), BINS - 1)
    filled = np.unique(bins)
    by_height = [
        np.percentile(scores[bins == filled[np.abs(filled - number).argmin()]], PERCENTS).tolist()
        for number in range(BINS)
    ]
    rows = [scan_quantities(scores[scans == scan], found) for scan in np.unique(scans)]
    of_scans = {name: sorted(row[name] for row in rows) for name in rows[0]}
    return HealthyScores(found, by_height, of_scans, len(scores))


def scan_quantities(scores: np.ndarray, above: Mapping[str, float]) -> dict[str, float]:
    """What the slice scores [n] of a scan say of the whole.

    `max`, `mean`, `p95` (95th percentile), and for each rate in `above` the share of slices above
    its threshold, `share_above_<rate>`.
    """
    quantities = {"max": scores.max(), "mean": scores.mean(), "p95": np.percentile(scores, 95)}
    shares = {f"share_above_{rate}": (scores > value).mean() for rate, value in above.items()}
    return {name: float(value) for name, value in (quantities | shares).items()}


def slice_percentiles(usual: HealthyScores, scores: np.ndarray, position: np.ndarray) -> np.ndarray:
    """[n]: the percentile, 0 to 100, of scores [n] among healthy slices of that `position` [n]."""
    curves = _curves(usual, position)
    pairs = zip(scores, curves, strict=True)
    return np.array([np.interp(score, curve, PERCENTS) for score, curve in pairs])


def slice_range(
    usual: HealthyScores, position: np.ndarray, percents: tuple[int, int] = (5, 95)
) -> tuple[np.ndarray, np.ndarray]:
    """Two percentiles, [n] each, of healthy slices' scores at heights `position` [n]."""
    low, high = _curves(usual, position).T[list(percents)]
    return low, high


def scan_percentile(usual: HealthyScores, name: str, value: float) -> float:
    """The percentile, 0 to 100, of one of `scan_quantities` among healthy scans.

    The share of scans below, ties counting one half.
    """
    values = np.asarray(usual.scans[name])
    return float(100 * (np.mean(values < value) + np.mean(values == value) / 2))


def _curves(usual: HealthyScores, position: np.ndarray) -> np.ndarray:
    """[n, 101]: percentiles at each height, linear between the middles of the ten parts."""
    table = np.asarray(usual.by_height)
    at = np.clip(np.asarray(position, float) * BINS - 0.5, 0, BINS - 1)
    lower = np.minimum(at.astype(int), BINS - 2)
    share = (at - lower)[:, None]
    return (1 - share) * table[lower] + share * table[lower + 1]
