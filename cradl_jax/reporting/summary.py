"""Results over seeds, the estimates made from them, and why some of them do not exist.

What `tables` prints and Figure 2 of the paper draws (Lüth et al. 2023).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from statistics import fmean, stdev
from types import MappingProxyType
from typing import NamedTuple

from cradl_jax.evaluation.results import BASELINE, LEVELS, Choice, Result, select_scores
from cradl_jax.reporting import paper
from cradl_jax.reporting.figures import Bar

Names = Mapping[str, str]  # our name of a data set -> the paper's, for those that are the paper's
NAMELESS: Names = MappingProxyType({})
SPLITS = {"test": "test", "val": "validation"}
DASH = "–"

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

    Attributes:
        dataset: on whose test scans.
        level: "slice" or "voxel".
        comparison: "full" or "radl".
        best: method.
        second: method.
        difference: best - second of `metric`, as a share of one.
        low: lower end of its 95 % interval.
        high: upper end.
        p: p-value of no difference.
        metric: what is compared.
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


class Spread(NamedTuple):
    """Mean and sample standard deviation over seeds, NaN where there is none."""

    mean: float = math.nan
    std: float = math.nan


class Key(NamedTuple):
    """What several seeds measured: a `Result` without seed and value."""

    dataset: str
    split: str
    level: str
    method: str
    score: str
    metric: str


def over_seeds(rows: Iterable[Result]) -> dict[Key, Spread]:
    """Mean and standard deviation of all that was measured, in the order of the rows."""
    found: dict[Key, list[float]] = {}
    for row in rows:
        key = Key(row.dataset, row.split, row.level, row.method, row.score, row.metric)
        found.setdefault(key, []).append(row.value)
    return {key: spread(values) for key, values in found.items()}


def spread(values: Iterable[float]) -> Spread:
    """Mean and sample standard deviation of what is not NaN; one value has no deviation."""
    defined = [value for value in values if not math.isnan(value)]
    if not defined:
        return Spread()
    return Spread(fmean(defined), stdev(defined) if len(defined) > 1 else math.nan)


def percent(value: Spread) -> str:
    """'32.5 (0.8)', as in Tables 2 and 3: mean and standard deviation in %; – if undefined."""
    if math.isnan(value.mean):
        return DASH
    deviation = "" if math.isnan(value.std) else f" ({100 * value.std:.1f})"
    return f"{100 * value.mean:.1f}{deviation}"


def fraction(value: Spread) -> str:
    """'0.3246±0.0076', as in Tables 5 to 8: mean and standard deviation; – if undefined."""
    if math.isnan(value.mean):
        return DASH
    return f"{value.mean:.4f}" + ("" if math.isnan(value.std) else f"±{value.std:.4f}")


def title(rows: Iterable[Result], level: str, split: str) -> str:
    """What a table shows: level, task and split, and over how many seeds."""
    seeds = len({row.seed for row in rows})
    over = "one seed" if seeds == 1 else f"mean and standard deviation over {seeds} seeds"
    return f"{level.capitalize()}-wise {LEVELS[level]} on {SPLITS[split]}, {over}"


def in_order(methods: Iterable[str], order: str) -> list[str]:
    """Methods in a table's order, those that the paper does not have next, baselines last."""
    ranks = {method: rank for rank, method in enumerate(order.split())}
    return sorted(methods, key=lambda m: (m == BASELINE, ranks.get(m, len(ranks)), m))


def datasets(values: Mapping[Key, Spread], level: str) -> list[str]:
    """The data sets that were measured at a level, in their order."""
    return list(dict.fromkeys(key.dataset for key in values if key.level == level))


def cited(table: int, key: Key, names: Names) -> Spread:
    """What one of Tables 2, 3 and 5 to 8 has for a key, of which the split does not count."""
    row = paper.find(table, key.method, key.score, names.get(key.dataset, ""), key.metric)
    return Spread(row.mean, row.std) if row else Spread()


def undefined(
    values: Mapping[Key, Spread], level: str, split: str, what: str = "metric"
) -> list[str]:
    """A sentence for each data set on which no `what` is defined, with the reason."""
    return [
        f"{dataset}: no {what} is defined on {SPLITS[split]}, since {reason}."
        for dataset in datasets(values, level)
        if (reason := _reason(values, dataset, level, split))
    ]


def without_choice(
    values: Mapping[Key, Spread], chosen: Mapping[Choice, str], level: str
) -> list[str]:
    """A sentence for each data set for which no method could choose a score, with the reason."""
    able = {key.dataset for key in chosen if key.level == level and key.method != BASELINE}
    return [
        f"{dataset}: no score could be chosen for {LEVELS[level]}, since "
        f"{_reason(values, dataset, level, 'val') or 'no validation AUPRC is defined'}."
        for dataset in datasets(values, level)
        if dataset not in able
    ]


def bars(
    rows: Sequence[Result], estimates: Iterable[Estimate] = (), names: Names = NAMELESS
) -> list[Bar]:
    """Figure 2: the test AUPRC of the densities, of KL-Div., and of the best own score.

    Error bars span the intervals of `estimates`, if there are any, and otherwise one standard
    deviation over seeds on either side. What could not be chosen or measured has no bar.
    """
    values, chosen = over_seeds(rows), select_scores(rows)
    intervals = {
        (e.dataset, e.level, e.method, e.score): (e.low, e.high)
        for e in estimates
        if e.metric == "auprc"
    }
    found = []
    for level, kl in (("slice", "kl"), ("voxel", "kl_grad")):
        for dataset, (kind, method) in product(datasets(values, level), _BARS):
            comparison = "radl" if kind == "density" else "full"
            choice = Choice(dataset, level, comparison, method)
            score = kl if kind == "kl" else chosen.get(choice, "")
            key = Key(dataset, "test", level, method, score, "auprc")
            mean, std = values.get(key, Spread())
            if math.isnan(mean):
                continue
            low, high = mean - std, mean + std
            if intervals:
                low, high = intervals.get((dataset, level, method, score), (math.nan, math.nan))
            theirs = paper.SELECTION.get(choice._replace(dataset=names.get(dataset, "")), "")
            quoted = key._replace(score=kl if kind == "kl" else theirs)
            quote = cited(paper.BY_SCORE[level, "test"], quoted, names).mean
            found.append(Bar(level, dataset, method, kind, mean, low, high, quote))
    return found


def prevalences(rows: Iterable[Result]) -> dict[tuple[str, str], float]:
    """The AUPRC of chance: share of anomalous slices or voxels on test by (level, data set)."""
    return {
        (row.level, row.dataset): row.value
        for row in rows
        if row.metric == "prevalence" and row.split == "test"
    }


def _reason(values: Mapping[Key, Spread], dataset: str, level: str, split: str) -> str:
    """Why no metric is defined on a split, or nothing."""
    found = {key: value for key, value in values.items() if key[:3] == (dataset, split, level)}
    if not found:
        return f"there are no {SPLITS[split]} results"
    shares = {value.mean for key, value in found.items() if key.metric == "prevalence"}
    for share, which in ((0, "none"), (1, "all")):
        if shares == {share}:
            verb = "is" if which == "none" else "are"
            return f"{which} of its {SPLITS[split]} {level}s {verb} anomalous"
    return ""
