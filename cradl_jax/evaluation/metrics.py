"""Detection and localization metrics, exact over any number of slices or voxels (Section 4.6).

AUPRC, AUROC, best Dice and the FPR at 95 % TPR are functions of the positives' scores and of how
many negatives lie above each of them: recall, and with it every one of these metrics, changes
nowhere else. Anomalous voxels are few, so their scores are kept and the negatives only counted,
in two passes over data that need never be in memory together. What lies above thresholds that come
from elsewhere, such as healthy scans, is counted in the same passes.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from cradl_jax.errors import InputError

Chunks = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]

SORTED_AT_ONCE = 1 << 25  # scores; 128 MB of float32
BLOCK = 1 << 12  # thresholds looked up together: what lies between them fits a core's cache


class OperatingPoints(NamedTuple):
    """What every metric follows from: counts at each distinct score of a positive, highest first.

    Thresholds that were asked for stand among them, with 0 positives where none has that score.

    thresholds: [T] scores; a slice or voxel is called anomalous if its score is not below.
    positives: [T] anomalous ones with that very score.
    tied: [T] normal ones with that very score.
    above: [T] normal ones with a higher score.
    negatives: number of all normal ones.
    """

    thresholds: np.ndarray
    positives: np.ndarray
    tied: np.ndarray
    above: np.ndarray
    negatives: int


def binary_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return `metrics_at` of scores (higher = more anomalous) and boolean labels of one shape.

    Raises:
        InputError: non-finite scores, another shape of labels, or labels other than 0 and 1.
    """
    return metrics_at(operating_points(in_memory(scores, labels)))


def metrics_at(points: OperatingPoints) -> dict[str, float]:
    """Return metrics over all thresholds; NaN where there are no positives or no negatives.

    auprc: step-wise area under precision and recall, as scikit-learn's average_precision_score.
    auroc: probability that a positive scores higher than a negative; ties count one half.
    dice: the best Dice that any threshold reaches, an oracle.
    fpr95: false-positive rate at the highest threshold with a true-positive rate of 0.95 or more.
    prevalence: the share of positives, which is the AUPRC of chance.
    """
    n_positive, n_negative = int(points.positives.sum()), points.negatives
    prevalence = n_positive / (n_positive + n_negative)
    if not n_positive or not n_negative:
        return dict.fromkeys(("auprc", "auroc", "dice", "fpr95"), np.nan) | {
            "prevalence": prevalence
        }
    true = np.cumsum(points.positives)
    false = points.above + points.tied
    overtaken = np.dot(points.positives, points.above + points.tied / 2)
    return {
        "auprc": float(np.dot(points.positives, true / np.maximum(true + false, 1)) / n_positive),
        "auroc": float(1 - overtaken / n_positive / n_negative),
        "dice": float(np.max(2 * true / (n_positive + true + false))),
        "fpr95": float(false[np.argmax(true / n_positive >= 0.95)] / n_negative),
        "prevalence": prevalence,
    }


def metrics_above(points: OperatingPoints, threshold: float) -> dict[str, float]:
    """Return metrics of one threshold: what lies above it, not what equals it, is called anomalous.

    dice: Dice; NaN where there are no positives or no negatives.
    sensitivity: the share of the positives that lies above; NaN where there are none.
    fpr: the share of the negatives that lies above; NaN where there are none.

    Raises:
        InputError: `threshold` is none of `points.thresholds`, see `operating_points`.
    """
    places = np.flatnonzero(points.thresholds == float(threshold))
    if not places.size:
        raise InputError(
            f"threshold {threshold}: expected one of those counted, found none; give it to "
            "operating_points"
        )
    n_positive, n_negative = int(points.positives.sum()), points.negatives
    true, false = int(points.positives[: places[0]].sum()), int(points.above[places[0]])
    defined = n_positive and n_negative
    return {
        "dice": 2 * true / (n_positive + true + false) if defined else np.nan,
        "sensitivity": true / n_positive if n_positive else np.nan,
        "fpr": false / n_negative if n_negative else np.nan,
    }


def operating_points(chunks: Chunks, at: Sequence[float] = ()) -> OperatingPoints:
    """Count what the metrics need, with memory for the positives and one chunk.

    Args:
        chunks: called twice; each time yields the same (scores, labels) arrays, of one shape
            each, labels boolean or 0 and 1.
        at: further thresholds, for `metrics_above`; rounded to the scores' precision.

    Raises:
        InputError: no scores, non-finite scores, another shape of labels than of scores, labels
            other than 0 and 1, or a second pass that differs from the first.
    """
    thresholds, positives, total = _positives(chunks, at)
    below, up_to, counted = _count(chunks, thresholds)
    if counted != total:
        raise InputError(
            f"chunks gave {total} scores at first and {counted} the second time; expected a "
            "function that starts again at every call, such as a lambda around a generator function"
        )
    # Without the positives, which are known one by one, the counts are those of normal ones.
    positives_up_to = np.cumsum(positives)
    negatives = total - int(positives.sum())
    negatives_up_to = up_to - positives_up_to
    negatives_below = below - (positives_up_to - positives)
    tied, above = negatives_up_to - negatives_below, negatives - negatives_up_to
    return OperatingPoints(thresholds[::-1], positives[::-1], tied[::-1], above[::-1], negatives)


def in_memory(scores: np.ndarray, labels: np.ndarray) -> Chunks:
    """Return arrays of one shape as chunks of views for `operating_points`."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.shape != labels.shape:
        raise InputError(f"scores have shape {scores.shape}, labels {labels.shape}; expected one")
    scores, labels = scores.reshape(-1), labels.reshape(-1)
    starts = range(0, scores.size, SORTED_AT_ONCE // 8)
    return lambda: (
        (scores[start : start + starts.step], labels[start : start + starts.step])
        for start in starts
    )


def _positives(chunks: Chunks, at: Sequence[float]) -> tuple[np.ndarray, np.ndarray, int]:
    """Return distinct scores of positives and `at`, ascending; positives at each; count of all."""
    anomalous, total = [], 0
    for scores, labels in chunks():
        scores, labels = np.asarray(scores), np.asarray(labels)
        if scores.shape != labels.shape:
            raise InputError(f"scores have shape {scores.shape}, labels {labels.shape}")
        if not np.isfinite(scores).all():
            raise InputError(
                f"{np.count_nonzero(~np.isfinite(scores))} of {scores.size} scores are not "
                "finite; a diverged training or an overflow in the density gives such scores"
            )
        if labels.dtype != bool:
            if not np.isin(labels, (0, 1)).all():
                raise InputError(f"labels hold {np.unique(labels)[:5]}; expected only 0 and 1")
            labels = labels.astype(bool)
        anomalous.append(scores[labels])
        total += scores.size
    if not total:
        raise InputError("no scores at all; expected at least one slice or voxel")
    further = np.unique(np.asarray(at, np.result_type(anomalous[0], 0.0)))
    thresholds, counts = np.unique(np.concatenate([*anomalous, further]), return_counts=True)
    counts[np.searchsorted(thresholds, further)] -= 1
    return thresholds, counts, total


def _count(chunks: Chunks, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return scores below, and not above, each ascending threshold; number of all scores."""
    below, up_to = np.zeros((2, len(thresholds)), np.int64)
    pieces, total = (np.ravel(scores) for scores, _ in chunks()), 0
    if not len(thresholds):
        return below, up_to, sum(piece.size for piece in pieces)
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        for values in _buffered(pieces, thresholds.dtype):
            total += values.size
            parts = np.array_split(values, workers)
            list(pool.map(np.ndarray.sort, parts))
            count = partial(_count_block, parts, thresholds, below, up_to)
            list(pool.map(count, range(0, len(thresholds), BLOCK)))
    return below, up_to, total


def _buffered(pieces: Iterable[np.ndarray], dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yield the pieces' values in one reused buffer that is full each time but the last."""
    buffer, used = np.empty(SORTED_AT_ONCE, dtype), 0
    for piece in pieces:
        while piece.size:
            taken = piece[: SORTED_AT_ONCE - used]
            buffer[used : used + taken.size] = taken
            used, piece = used + taken.size, piece[taken.size :]
            if used == SORTED_AT_ONCE:
                yield buffer
                used = 0
    yield buffer[:used]


def _count_block(
    parts: list[np.ndarray], thresholds: np.ndarray, below: np.ndarray, up_to: np.ndarray, at: int
) -> None:
    """Add to `below` and `up_to`, for thresholds from `at` on, what the sorted parts hold."""
    block = slice(at, at + BLOCK)
    wanted = thresholds[block]
    for part in parts:
        first = np.searchsorted(part, wanted[0], "left")
        near = part[first : np.searchsorted(part, wanted[-1], "right")]
        below[block] += first + np.searchsorted(near, wanted, "left")
        up_to[block] += first + np.searchsorted(near, wanted, "right")


def covariance_spectrum(z: np.ndarray) -> np.ndarray:
    """Return eigenvalues of the covariance of representations [N, D], [D], largest first."""
    covariance = np.cov(np.asarray(z, np.float64), rowvar=False).reshape(z.shape[1], z.shape[1])
    return np.clip(np.linalg.eigvalsh(covariance)[::-1], 0, None)


def effective_rank(spectrum: np.ndarray) -> float:
    """Return how many dimensions representations use: between 1 and D, NaN if they are constant.

    The exponential of the entropy of the normalized eigenvalues [D] of their covariance (Roy and
    Vetterli, "The effective rank", EUSIPCO 2007).
    """
    if not spectrum.sum() > 0:
        return float("nan")
    share = spectrum / spectrum.sum()
    share = share[share > 0]
    return float(np.exp(-np.sum(share * np.log(share))))
