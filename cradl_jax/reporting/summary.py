"""Results over seeds, the estimates made from them, and why some of them do not exist.

What `tables` prints and Figure 2 of the paper draws (Lüth et al. 2023).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from statistics import fmean, stdev
from types import MappingProxyType
from typing import NamedTuple

from cradl_jax.evaluation.results import LEVELS, Choice, Result, select_scores
from cradl_jax.names import BASELINE
from cradl_jax.reporting import paper
from cradl_jax.reporting.figures import Bar

Names = Mapping[str, str]  # our name of a data set -> the paper's, for those that are the paper's
NAMELESS: Names = MappingProxyType({})
SPLITS = {"test": "test", "val": "validation"}
DASH = "–"
UNDEFINED = (math.nan, math.nan)

Key = tuple[str, str, str, str]
"""Data set, method, score and metric."""
Spreads = Mapping[Key, tuple[float, float]]
"""Mean and sample standard deviation over seeds."""

_BARS = (
    *(("density", method) for method in ("cradl", "cevae", "vae")),
    *(("kl", method) for method in ("cevae", "vae")),
    *(("best", method) for method in ("cevae", "vae")),
)


class Estimate(NamedTuple):
    """A metric of a chosen score on test with its bootstrap 95 % interval, as shares of one."""

    dataset: str
    level: str
    comparison: str
    method: str
    score: str
    metric: str
    mean: float
    low: float
    high: float


class Comparison(NamedTuple):
    """How far the best method is ahead of the second, on the same resampled patients.

    `difference` is best - second of `metric` on test, as a share of one, with its 95 % interval;
    `p` is the p-value of no difference.
    """

    dataset: str
    level: str
    comparison: str
    best: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    metric: str = "auprc"


def measured(rows: Iterable[Result], level: str, split: str) -> Spreads:
    """Return what seeds measured at one level and split, by data set, method, score and metric.

    Values that are NaN do not count; a single value has no deviation.
    """
    values: dict[Key, list[float]] = {}
    for row in rows:
        if (row.level, row.split) == (level, split) and not math.isnan(row.value):
            key = row.dataset, row.method, row.score, row.metric
            values.setdefault(key, []).append(row.value)
    return {key: (fmean(v), stdev(v) if len(v) > 1 else math.nan) for key, v in values.items()}


def of_choices(rows: Sequence[Result], level: str, comparison: str = "full") -> Spreads:
    """Return what was measured on test of each method's chosen score, as `cited` does: score ""."""
    chosen = select_scores(rows)
    return {
        (dataset, method, "", metric): spread
        for (dataset, method, score, metric), spread in measured(rows, level, "test").items()
        if chosen.get(Choice(dataset, level, comparison, method)) == score
    }


def cited(table: int, names: Names) -> Spreads:
    """Return the paper's Table 2, 3 or 5 to 8 as `measured` does, scores "" in Tables 2 and 3."""
    return {
        (ours, row.method, row.score, row.metric): (row.mean, row.std)
        for ours, theirs in names.items()
        for row in paper.rows()
        if (row.table, row.dataset) == (table, theirs)
    }


def percent(mean: float, std: float = math.nan) -> str:
    """Return '32.5 (0.8)', as in Tables 2 and 3: mean and deviation in %; – if undefined."""
    if math.isnan(mean):
        return DASH
    return f"{100 * mean:.1f}" + ("" if math.isnan(std) else f" ({100 * std:.1f})")


def fraction(mean: float, std: float = math.nan) -> str:
    """Return '0.3246±0.0076', as in Tables 5 to 8: mean and deviation; – if undefined."""
    if math.isnan(mean):
        return DASH
    return f"{mean:.4f}" + ("" if math.isnan(std) else f"±{std:.4f}")


def title(rows: Iterable[Result], level: str, split: str) -> str:
    """Return what a table shows: level, task and split, and over how many seeds."""
    seeds = len({row.seed for row in rows})
    over = "one seed" if seeds == 1 else f"mean and standard deviation over {seeds} seeds"
    return f"{level.capitalize()}-wise {LEVELS[level]} on {SPLITS[split]}, {over}"


def in_order(methods: Iterable[str], order: str) -> list[str]:
    """Return methods in a table's order, then those that the paper lacks, baselines last."""
    ranks = {method: rank for rank, method in enumerate(order.split())}
    return sorted(set(methods), key=lambda m: (m == BASELINE, ranks.get(m, len(ranks)), m))


def datasets(rows: Iterable[Result], level: str) -> list[str]:
    """Return the data sets that were measured at a level, in their order."""
    return list(dict.fromkeys(row.dataset for row in rows if row.level == level))


def remarks(rows: Sequence[Result], level: str, split: str, what: str = "metric") -> list[str]:
    """Return sentences that say where no `what` is defined, or no score chosen, with the reason."""
    undefined = [
        f"{dataset}: no {what} is defined on {SPLITS[split]}, since {reason}."
        for dataset in datasets(rows, level)
        if (reason := _reason(rows, dataset, level, split))
    ]
    return undefined + without_choice(rows, level)


def without_choice(rows: Sequence[Result], level: str) -> list[str]:
    """Return a sentence for each data set for which no method could choose a score, and why."""
    chosen = select_scores(rows)
    able = {key.dataset for key in chosen if key.level == level and key.method != BASELINE}
    return [
        f"{dataset}: no score could be chosen for {LEVELS[level]}, since "
        f"{_reason(rows, dataset, level, 'val') or 'no validation AUPRC is defined'}."
        for dataset in datasets(rows, level)
        if dataset not in able
    ]


def bars(
    rows: Sequence[Result], estimates: Iterable[Estimate] = (), names: Names = NAMELESS
) -> list[Bar]:
    """Return Figure 2: the test AUPRC of the densities, of KL-Div., and of the best own score.

    Error bars span the intervals of `estimates`, if there are any, and otherwise one standard
    deviation over seeds on either side. What could not be chosen or measured has no bar.
    """
    chosen = select_scores(rows)
    intervals = {
        (e.dataset, e.level, e.method, e.score): (e.low, e.high)
        for e in estimates
        if e.metric == "auprc"
    }
    drawn = []
    for level, kl in (("slice", "kl"), ("voxel", "kl_grad")):
        spreads = measured(rows, level, "test")
        quotes = cited(paper.BY_SCORE[level, "test"], names)
        for dataset, (kind, method) in product(datasets(rows, level), _BARS):
            choice = Choice(dataset, level, "radl" if kind == "density" else "full", method)
            score = kl if kind == "kl" else chosen.get(choice, "")
            mean, std = spreads.get((dataset, method, score, "auprc"), UNDEFINED)
            if math.isnan(mean):
                continue
            low, high = mean - std, mean + std
            if intervals:
                low, high = intervals.get((dataset, level, method, score), (math.nan, math.nan))
            theirs = paper.SELECTION.get(choice._replace(dataset=names.get(dataset, "")), "")
            quote = (dataset, method, kl if kind == "kl" else theirs, "auprc")
            quoted, _ = quotes.get(quote, UNDEFINED)
            drawn.append(Bar(level, dataset, method, kind, mean, low, high, quoted))
    return drawn


def beyond_bars(rows: Sequence[Result], estimates: Iterable[Estimate]) -> list[Bar]:
    """Return the test AUPRC of each method, and of the baselines, at the best of all its scores.

    Error bars span the intervals of `estimates`.
    """
    intervals = {
        (e.dataset, e.level, e.method): (e.low, e.high)
        for e in estimates
        if (e.metric, e.comparison) == ("auprc", "beyond")
    }
    return [
        Bar(level, dataset, method, "beyond", mean, *intervals.get((dataset, level, method), ()))
        for level in LEVELS
        for (dataset, method, _, metric), (mean, _) in of_choices(rows, level, "beyond").items()
        if metric == "auprc"
    ]


def prevalences(rows: Iterable[Result]) -> dict[tuple[str, str], float]:
    """Return chance's AUPRC: the share of anomalous slices or voxels by (level, data set)."""
    return {
        (row.level, row.dataset): row.value
        for row in rows
        if row.metric == "prevalence" and row.split == "test"
    }


def _reason(rows: Iterable[Result], dataset: str, level: str, split: str) -> str:
    """Return why no metric is defined on a split, or nothing."""
    here = [row for row in rows if (row.dataset, row.split, row.level) == (dataset, split, level)]
    if not here:
        return f"there are no {SPLITS[split]} results"
    shares = {row.value for row in here if row.metric == "prevalence"}
    slices = f"its {SPLITS[split]} {level}s"
    if shares == {0}:
        return f"none of {slices} is anomalous"
    return f"all of {slices} are anomalous" if shares == {1} else ""
