"""Detection of lesions at a number of false findings a healthy scan (FROC), beyond the paper.

A lesion is a connected component of the annotation in 3-D, of more than `SPECK` voxels; a finding
is one of the voxels of the brain whose heatmap lies above a threshold. Voxels that share a face, an
edge or a corner are connected. A lesion is hit if any of its voxels lies above the threshold, so if
its highest value does. Every finding in a healthy scan is false.

The threshold comes down from the highest value in healthy scans to the one that a tenth of their
brain exceeds: below it a map would localize nothing. It stops before the mean number of findings in
healthy scans first exceeds the rate allowed. Lower thresholds, where findings merge and become
fewer again, do not count.
"""

from collections.abc import Callable, Iterable
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from cradl_jax.evaluation.components import CONNECTED
from cradl_jax.evaluation.extremes import highest
from cradl_jax.evaluation.scan_level import Measures

RATES = (0.5, 1, 2, 4)
"""False findings a healthy scan."""
SPECK = 5  # voxels; the paper ignores as many in a slice (Section 4.6)
LARGEST_SHARE = 0.1  # of the brains of healthy scans above the lowest threshold
THRESHOLDS = 256
SIZES = ("q1", "q2", "q3", "q4")
"""Quarters of all lesions of a data set by size, the smallest first."""
_NEIGHBOURS = [at for at in product((-1, 0, 1), repeat=3) if at > (0, 0, 0)]  # half of all 26


class Lesions(NamedTuple):
    """The lesions of a scan.

    Attributes:
        voxels: [V] places in the flattened volume.
        lesion: [V] number of the lesion that each belongs to, from 0.
        sizes: [L] voxels of each.
    """

    voxels: np.ndarray
    lesion: np.ndarray
    sizes: np.ndarray


class Findings(NamedTuple):
    """What S healthy scans hold above each of T thresholds.

    Attributes:
        thresholds: [T], descending.
        counts: [S, T] findings.
        marked: [S, T] voxels above.
    """

    thresholds: np.ndarray
    counts: np.ndarray
    marked: np.ndarray


def find_lesions(mask: np.ndarray) -> Lesions:
    """Find the lesions of a scan in its annotation [D, H, W], bool."""
    labels, count = ndimage.label(mask, CONNECTED)
    voxels = np.flatnonzero(labels)
    number = labels.ravel()[voxels] - 1
    sizes = np.bincount(number, minlength=count)
    kept = sizes > SPECK
    renumbered = np.cumsum(kept) - 1
    inside = kept[number]
    return Lesions(voxels[inside], renumbered[number[inside]], sizes[kept])


def peaks(heatmap: np.ndarray, lesions: Lesions) -> np.ndarray:
    """Return the highest value of a scan's heatmap [D, H, W] in each of its lesions, [L]."""
    highest = np.full(len(lesions.sizes), -np.inf, np.float32)
    np.maximum.at(highest, lesions.lesion, heatmap.ravel()[lesions.voxels])
    return highest


def sweep(scans: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]], n_voxels: int) -> Findings:
    """Count the findings in healthy scans, with memory for a scan and the highest tenth of all.

    Args:
        scans: called twice; each time yields heatmap [D, H, W] and brain [D, H, W] of each scan.
        n_voxels: of all brains.

    Raises:
        InputError: a value is not finite.
    """
    in_brains = (heatmap[brain] for heatmap, brain in scans())
    descending, _ = highest(in_brains, int(LARGEST_SHARE * n_voxels) + 1)
    ranks = np.geomspace(1, len(descending), THRESHOLDS).astype(int) - 1
    thresholds = np.unique(descending[ranks])[::-1]
    rows = [count_findings(heatmap, brain, thresholds) for heatmap, brain in scans()]
    counts, marked = (np.array(column) for column in zip(*rows, strict=True))
    return Findings(thresholds, counts, marked)


def count_findings(
    heatmap: np.ndarray, brain: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count a scan's findings and its voxels above each threshold, [T] each, exactly.

    Voxels above a threshold, joined by those edges of a maximum spanning forest that lie above it,
    are a forest: its trees are the findings, as many as it has more voxels than edges.

    Args:
        heatmap: [D, H, W].
        brain: [D, H, W] bool.
        thresholds: [T] descending.
    """
    inside = brain & (heatmap > thresholds[-1])
    values = heatmap[inside]
    if not values.size:
        return np.zeros(len(thresholds), int), np.zeros(len(thresholds), int)
    descending, rank = np.unique(-values, return_inverse=True)
    first, second = _touching(inside)
    lower = np.maximum(rank[first], rank[second]) + 1  # since 0 is no edge
    graph = coo_array((lower, (first, second)), shape=(values.size, values.size))
    forest = minimum_spanning_tree(graph.tocsr()).data.astype(int) - 1
    marked, joined = (
        np.searchsorted(np.sort(one), -thresholds) for one in (-values, descending[forest])
    )
    return marked - joined, marked


def _touching(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends [E] of each pair of connected voxels; those of `inside` [D, H, W] count."""
    depth, height, width = np.add(inside.shape, 2)  # so that none is at the edge
    number = np.full((depth, height, width), -1)
    number[1:-1, 1:-1, 1:-1][inside] = np.arange(np.count_nonzero(inside))
    flat = number.ravel()
    place = np.flatnonzero(flat >= 0)
    steps = np.array([height * width, width, 1])
    others = [flat[place + int(np.dot(offset, steps))] for offset in _NEIGHBOURS]
    pairs = [(np.flatnonzero(other >= 0), other[other >= 0]) for other in others]
    first, second = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    return first, second


def froc(
    findings: Findings,
    highest: np.ndarray,
    scan: np.ndarray,
    sizes_ml: np.ndarray,
    healthy_weights: np.ndarray,
    weights: np.ndarray,
) -> Measures:
    """Return the share of lesions that are hit at each of `RATES`, `sensitivity@<rate>fp`.

    That of each quarter by size is `sensitivity@<rate>fp_<quarter>`; NaN where there is no lesion.
    Beside it stand the number of lesions, `lesions`, the size of the largest one, `largest_ml`, of
    all and of each quarter, and the mean of what is marked in a healthy scan, `ml@<rate>fp`. A draw
    takes healthy scans, and so a threshold, of its own.

    Args:
        findings: in H healthy scans, one or more; what is marked in ml.
        highest: value of the heatmap in each lesion, [L].
        scan: [L] index of its scan.
        sizes_ml: [L].
        healthy_weights: [draws, H], see `bootstrap.draw_weights`.
        weights: [draws, S] of the scans with lesions.
    """
    hit = highest[:, None] > findings.thresholds
    in_scan = np.arange(weights.shape[1])[:, None] == scan
    places = operating_places(findings.counts.mean(0))
    drawn = operating_places(_weighted_mean(findings.counts, healthy_weights))
    drawn[~healthy_weights.any(1)] = -1  # which NaN follows
    marked = _weighted_mean(findings.marked, healthy_weights)
    values, draws = {}, {}
    for number, rate in enumerate(RATES):
        values[f"ml@{rate:g}fp"] = float(findings.marked[:, places[number]].mean())
        draws[f"ml@{rate:g}fp"] = _at(marked, drawn[:, number])
    quarter = quarters(sizes_ml)
    groups = {f"_{name}": quarter == number for number, name in enumerate(SIZES)}
    for suffix, chosen in ({"": np.full(len(scan), True)} | groups).items():
        counts = (in_scan & chosen).sum(1)
        hits = (in_scan & chosen).astype(float) @ hit
        redrawn = _weighted_mean(hits, weights, counts)
        values[f"lesions{suffix}"] = float(counts.sum())
        values[f"largest_ml{suffix}"] = float(sizes_ml[chosen].max(initial=0))
        for number, rate in enumerate(RATES):
            name = f"sensitivity@{rate:g}fp{suffix}"
            total = float(counts.sum())
            values[name] = float(hits[:, places[number]].sum() / total) if total else np.nan
            draws[name] = _at(redrawn, drawn[:, number])
    return values, draws


def quarters(sizes: np.ndarray) -> np.ndarray:
    """Return the quarter of each lesion, 0 to 3, among all sizes [L]; ties go to the lower one."""
    bounds = np.quantile(sizes, (0.25, 0.5, 0.75)) if len(sizes) else np.zeros(3)
    return np.searchsorted(bounds, sizes)


def operating_places(counts: np.ndarray) -> np.ndarray:
    """Return for each of `RATES` the place [..., R] of its threshold among T descending ones.

    It is the last before the mean number of findings [..., T] first exceeds the rate.
    """
    most = np.maximum.accumulate(np.nan_to_num(counts), axis=-1)
    return np.stack([(most <= rate).sum(-1) - 1 for rate in RATES], axis=-1)


def _at(means: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the value [draws] at a draw's place [draws] among T thresholds; NaN where it is -1."""
    return np.where(places < 0, np.nan, np.take_along_axis(means, places[:, None], 1)[:, 0])


def _weighted_mean(
    values: np.ndarray, weights: np.ndarray, sizes: np.ndarray | None = None
) -> np.ndarray:
    """Return sums over scans [S, T] by weights [draws, S] over those of `sizes` [S], or of scans.

    NaN for a draw of nothing.
    """
    total = weights @ (np.ones(len(values)) if sizes is None else sizes)
    with np.errstate(invalid="ignore"):
        return (weights @ values) / np.where(total > 0, total, np.nan)[:, None]
