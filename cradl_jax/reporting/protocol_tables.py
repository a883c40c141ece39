"""Tables of the protocol beyond the paper: scans, lesions, the brain alone, healthy test scans."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

from cradl_jax.evaluation.lesions import RATES, SIZES, SPECK
from cradl_jax.evaluation.results import METRICS
from cradl_jax.evaluation.scan_level import GIVEN, SCAN_SCORES
from cradl_jax.reporting import paper
from cradl_jax.reporting.page import Table
from cradl_jax.reporting.summary import DASH, Estimate, percent

CHOSEN = (
    "Each method at the {} that it chose among all on validation; in brackets 95 % intervals from "
    "resampled scans."
)
EXCEEDED = "which a share of the brains of healthy validation scans exceeds"
NO_HEALTHY_TEST = (
    "The healthy data set has no split test: scans and lesions are not measured against healthy "
    "test scans, nor what is marked in these. Give it one to have these tables."
)
SCAN_NAMES = {
    "max": "highest slice",
    "mean": "mean of slices",
    "p95": "95th percentile",
    GIVEN: "of its own",
}
QUARTERS = ("smallest quarter", "second", "third", "largest quarter")
GROUPS = {"": "all"} | {f"_{size}": name for size, name in zip(SIZES, QUARTERS, strict=True)}
"""Of lesions by size, by the end of their metrics' names."""

Estimates = Mapping[tuple[str, str, str, str], Estimate]
"""By data set, method, level and metric."""


class Group(NamedTuple):
    """What label-free thresholds mark in a group of healthy test scans.

    Attributes:
        method: whose scores these are.
        scores: the slice score and the heatmap.
        name: of the group.
        scans: how many there are.
        slices: by rate, mean, low and high end of the share of slices above the threshold.
        ml: by rate, the same of the brain's volume above the threshold.
    """

    method: str
    scores: tuple[str, str]
    name: str
    scans: int
    slices: Mapping[str, tuple[float, float, float]]
    ml: Mapping[str, tuple[float, float, float]]


def by_key(estimates: Sequence[Estimate]) -> Estimates:
    """Return estimates by data set, method, level and metric."""
    return {(e.dataset, e.method, e.level, e.metric): e for e in estimates}


def protocol_tables(estimates: Sequence[Estimate]) -> list[Table]:
    """Return all that the estimates hold; a note says if healthy test scans are missing."""
    found = by_key(estimates)
    tables = [scan_table(found), lesion_table(found), dice_table(found), brain_table(found)]
    tables = [table for table in tables if table.rows]
    if tables and not any(level == "lesion" for _, _, level, _ in found):
        tables[0] = tables[0]._replace(notes=(*tables[0].notes, NO_HEALTHY_TEST))
    return tables


def scan_table(found: Estimates) -> Table:
    """Return how well each method tells anomalous test scans from healthy ones, in %."""
    given = any(metric == f"auroc_{GIVEN}" for *_, metric in found)
    pairs = list(product(("auroc", "auprc"), (*SCAN_SCORES, GIVEN) if given else SCAN_SCORES))
    metrics = [f"{metric}_{score}" for metric, score in pairs]
    header = (f"{METRICS[metric]}, {SCAN_NAMES[score]}" for metric, score in pairs)
    chance = "; ".join(
        f"{dataset} {percent(e.mean)}"
        for (dataset, method, level, metric), e in found.items()
        if (level, metric) == ("scan", "prevalence") and method == _methods(found, dataset)[0]
    )
    itself = ", or one of its own" if given else ""
    caption = (
        "Beyond the paper: detection of scans, anomalous test scans against healthy test scans, in "
        "%, a scan's score being the highest of its slices' scores, their mean or their 95th "
        f"percentile{itself}. {CHOSEN.format('slice score')} The AUPRC of chance is the share of "
        f"anomalous scans: {chance}. Where a data set comes from another scanner than the healthy "
        "one, that alone tells its scans."
    )
    rows = _rows(found, "scan", metrics)
    return Table(caption, ("Data set", "Method", "Score", *header), rows)


def dice_table(found: Estimates) -> Table:
    """Return median and quartiles over scans of best Dice and of Dice at label-free thresholds."""
    names = dict.fromkeys(
        metric.rsplit("_", 1)[0]
        for _, _, level, metric in found
        if level == "scan" and metric.startswith("dice")
    )
    rows = []
    for dataset, method in _pairs(found, "scan", "dice_median"):
        cells = []
        for name in names:
            quartiles = (found.get((dataset, method, "scan", f"{name}_{q}")) for q in ("q1", "q3"))
            ends = [percent(e.mean) for e in quartiles if e]
            median = _cell(found.get((dataset, method, "scan", f"{name}_median")))
            cells += [median, f"{ends[0]} to {ends[1]}" if len(ends) == 2 else DASH]
        score = found[dataset, method, "scan", "dice_median"].score
        rows.append((dataset, paper.method_name(method), paper.score_name(score), *cells))
    header = []
    for name in names:
        what = f"Dice{_at(name)}" if "@" in name else "Best Dice of each scan (oracle)"
        header += [what, "Quartiles"]
    caption = (
        "Beyond the paper: Dice of each test scan with an anomaly, in %, median and quartiles over "
        "scans, of the voxels of its brain. The best Dice is an oracle, a threshold for each scan; "
        f"the others are at label-free thresholds, {EXCEEDED}. {CHOSEN.format('heatmap')}"
    )
    return Table(caption, ("Data set", "Method", "Heatmap", *header), rows)


def brain_table(found: Estimates) -> Table:
    """Return voxel metrics over whole slices beside those over the brain alone, in %."""
    metrics = [f"{metric}{where}" for metric in METRICS for where in ("", "_brain")]
    header = [f"{METRICS[m]}, {where}" for m in METRICS for where in ("slice", "brain")]
    rates = [
        metric
        for metric in dict.fromkeys(metric for _, _, _, metric in found)
        if metric.startswith("fpr@") and metric.endswith("_brain")
    ]
    caption = (
        "Beyond the paper: voxels of the brain alone beside those of whole slices, whose "
        "background is easily told, in % on test. False positives are the share of the brain's "
        f"normal voxels above a label-free threshold, {EXCEEDED}. {CHOSEN.format('heatmap')}"
    )
    further = [f"False positives{_at(metric.removesuffix('_brain'))}, brain" for metric in rates]
    rows = _rows(found, "voxel", [*metrics, *rates])
    return Table(caption, ("Data set", "Method", "Heatmap", *header, *further), rows)


def lesion_table(found: Estimates) -> Table:
    """Return the share of lesions that are hit at a number of false findings a healthy scan."""
    rows = []
    for dataset, method in _pairs(found, "lesion", "lesions"):
        mine = {
            metric: e for (*of, metric), e in found.items() if of == [dataset, method, "lesion"]
        }
        score = paper.score_name(mine["lesions"].score)
        label = dataset, paper.method_name(method), score
        for suffix, name in GROUPS.items():
            count, largest = (mine[f"{of}{suffix}"].mean for of in ("lesions", "largest_ml"))
            size = f"{name}, up to {_ml(largest)} ml" if count else name
            cells = (_cell(mine.get(f"sensitivity@{rate:g}fp{suffix}")) for rate in RATES)
            rows.append((*label, size, f"{count:.0f}", *cells))
        marked = (mine[f"ml@{rate:g}fp"] for rate in RATES)
        cells = (_volume(e.mean, e.low, e.high) for e in marked)
        rows.append((*label, "marked in a healthy scan, ml", DASH, *cells))
    caption = (
        "Beyond the paper: lesions that are hit, in %, at 0.5, 1, 2 and 4 false findings a "
        "healthy test scan. Lesions are connected components of the annotation in 3-D (26 "
        f"neighbours) of more than {SPECK} voxels, findings those of the brain's voxels above a "
        "threshold. A lesion is hit if any of its voxels is above it. The threshold comes down "
        "until the mean number of findings in healthy test scans would first exceed the rate, at "
        "most to where a tenth of their brain is marked; what it marks in a healthy scan is given "
        "in ml. "
        f"{CHOSEN.format('heatmap')}"
    )
    header = ("Data set", "Method", "Heatmap", "Size", "Lesions", *(f"{r:g} a scan" for r in RATES))
    return Table(caption, header, rows)


def healthy_table(groups: Sequence[Group], notes: Sequence[str] = ()) -> Table:
    """Return what label-free thresholds mark in healthy test scans, all and by group."""
    rates = list(groups[0].slices), list(groups[0].ml)
    rows = [
        (
            paper.method_name(group.method),
            " / ".join(map(paper.score_name, group.scores)),
            *(group.name, str(group.scans)),
            *(_cell_of(*group.slices[rate]) for rate in rates[0]),
            *(_volume(*group.ml[rate]) for rate in rates[1]),
        )
        for group in groups
    ]
    header = (
        *("Method", "Score / heatmap", "Scans of", "Scans"),
        *(f"Slices{_at(f'@{rate}')}, %" for rate in rates[0]),
        *(f"Volume{_at(f'@{rate}')}, ml" for rate in rates[1]),
    )
    caption = (
        "Beyond the paper: false positives in healthy test scans, all and by site, scanner, age "
        "and sex where the participants' table says them: slices, and volume of the brain, above "
        "label-free thresholds, which a share of the slices, or of the brains, of healthy "
        "validation scans exceeds, means over scans. Each method at the scores that it chose among "
        "all on the validation scans of the first anomalous data set; in brackets 95 % intervals "
        "from resampled scans."
    )
    return Table(caption, header, rows, notes=tuple(notes))


def _methods(found: Estimates, dataset: str) -> list[str]:
    return list(dict.fromkeys(method for name, method, _, _ in found if name == dataset))


def _pairs(found: Estimates, level: str, metric: str) -> list[tuple[str, str]]:
    """Return each data set with each method that has an estimate of a metric."""
    return [(d, method) for d, method, at, of in found if (at, of) == (level, metric)]


def _rows(found: Estimates, level: str, metrics: Sequence[str]) -> list[tuple[str, ...]]:
    """Return data set, method and score, then an estimate of each metric, in %."""
    rows = []
    for dataset, method in dict.fromkeys((d, m) for d, m, at, of in found if of in metrics):
        cells = [found.get((dataset, method, level, metric)) for metric in metrics]
        score = next(e.score for e in cells if e)
        label = dataset, paper.method_name(method), paper.score_name(score)
        rows.append((*label, *map(_cell, cells)))
    return rows


def _at(metric: str) -> str:
    """Return ' at 5 %' of 'dice@0.05'."""
    rate = metric.partition("@")[2]
    try:
        return f" at {100 * float(rate):g} %"
    except ValueError:
        return f" at {rate}"


def _cell(estimate: Estimate | None) -> str:
    """Return '52.9 (48.1 to 57.3)', in %; – for what is not defined."""
    return _cell_of(estimate.mean, estimate.low, estimate.high) if estimate else DASH


def _cell_of(mean: float, low: float, high: float) -> str:
    ends = "" if math.isnan(low + high) else f" ({100 * low:.1f} to {100 * high:.1f})"
    return percent(mean) + ("" if math.isnan(mean) else ends)


def _volume(mean: float, low: float, high: float) -> str:
    """Return '1.2 (0.85 to 1.9)', in ml."""
    if math.isnan(mean):
        return DASH
    ends = "" if math.isnan(low + high) else f" ({_ml(low)} to {_ml(high)})"
    return f"{_ml(mean)}{ends}"


def _ml(volume: float) -> str:
    return f"{volume:.{2 if volume < 1 else 1 if volume < 10 else 0}f}"
