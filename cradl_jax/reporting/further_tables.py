"""Tables that the paper does not have: label-free thresholds and bootstrap intervals."""

import math
from collections.abc import Iterable, Sequence
from itertools import product

from cradl_jax.evaluation.results import (
    COMPARISONS,
    LEVELS,
    METRICS,
    Choice,
    Result,
    select_scores,
)
from cradl_jax.evaluation.thresholds import RATES
from cradl_jax.names import DENSE
from cradl_jax.reporting import paper
from cradl_jax.reporting.page import Table
from cradl_jax.reporting.summary import (
    DASH,
    UNDEFINED,
    Comparison,
    Estimate,
    datasets,
    in_order,
    of_choices,
    percent,
    remarks,
    title,
)

AT_RATE = {"dice": "Dice", "sensitivity": "Sensitivity", "fpr": "False positives"}
LEARNS = {
    "cradl": "contrast views",
    "vae": "reconstruct",
    "cevae": "reconstruct, and restore from masks",
    "cutpaste": "tell what is pasted",
    "mae": "restore hidden blocks",
}
"""What each pretext has an encoder learn to do."""


def threshold_table(rows: Sequence[Result], level: str) -> Table:
    """Return each method's chosen score on test, in %, at thresholds found without labels.

    The last row of a data set is the trivial baseline chosen in the same way.
    """
    metrics = ("dice", *(f"{metric}@{rate}" for metric, rate in product(AT_RATE, RATES)))
    table = _of_all(rows, level, metrics)
    caption = (
        f"{title(rows, level, 'test')}, in %: each method at the score that it chose among all on "
        f"validation, and at label-free thresholds, which 1, 5 and 10 % of the {level}s of "
        "healthy validation scans exceed. These thresholds come from healthy scans alone; the best "
        "Dice is an oracle, its threshold chosen on the test labels. False positives are the share "
        f"of the normal {level}s of these test scans above a threshold: the closer it is to the "
        "nominal rate, the better the threshold carries over."
    )
    at_rate = (f"{name} at {100 * float(r):g} %" for name, r in product(AT_RATE.values(), RATES))
    header = ("Data set", "Method", "Score", "Best Dice (oracle)", *at_rate)
    return Table(caption, header, table, notes=tuple(remarks(rows, level, "test", "Dice")))


def beyond_table(rows: Sequence[Result], level: str, metrics: Sequence[str]) -> Table:
    """Return `metrics` of each method on test, in %, at the score that it chose among all.

    Among them are those that the paper does not have: densities of features at each position
    ("dense", "memory"), methods beyond it, and the baselines, in the last row of a data set. Bold
    is the best of a data set.
    """
    spreads, best = of_choices(rows, level, "beyond"), {}
    for (dataset, _, _, metric), (mean, _) in spreads.items():
        best[dataset, metric] = max(mean, best.get((dataset, metric), mean))
    bold = {
        (line, column)
        for line, (dataset, method) in enumerate(_pairs(rows, level))
        for column, metric in enumerate(metrics, start=3)
        if spreads.get((dataset, method, "", metric), UNDEFINED)[0] == best.get((dataset, metric))
    }
    caption = (
        f"Beyond the paper: {title(rows, level, 'test').lower()}, in %. Each method at the score "
        "that it chose among all on validation, also densities of its encoder's features at each "
        "position (Dense), and a memory of patches where there is one; methods that the paper does "
        "not have; and the baselines, which need no network. Bold: the best of a data set."
    )
    header = ("Data set", "Method", "Score", *(METRICS[metric] for metric in metrics))
    notes = tuple(remarks(rows, level, "test"))
    return Table(caption, header, _of_all(rows, level, metrics), frozenset(bold), notes=notes)


def _pairs(rows: Sequence[Result], level: str) -> list[tuple[str, str]]:
    """Return each data set with each method, baselines last."""
    methods = in_order((row.method for row in rows if row.level == level), "cradl cevae vae")
    return list(product(datasets(rows, level), methods))


def _of_all(rows: Sequence[Result], level: str, metrics: Sequence[str]) -> list[tuple[str, ...]]:
    """Return data set, method, the score that it chose among all, and its metrics on test, in %."""
    spreads, chosen = of_choices(rows, level, "beyond"), select_scores(rows)
    table = []
    for dataset, method in _pairs(rows, level):
        score = chosen.get(Choice(dataset, level, "beyond", method), DASH)
        keys = [(dataset, method, "", metric) for metric in metrics]
        figures = [percent(*spreads.get(key, UNDEFINED)) for key in keys]
        table.append((dataset, paper.method_name(method), paper.score_name(score), *figures))
    return table


def pretext_table(estimates: Iterable[Estimate]) -> Table:
    """Return the test AUPRC of densities on each method's encoder, of `results.of_encoders`.

    Bold is the best of a data set.
    """
    found = {(e.dataset, e.comparison, e.level, e.method): e for e in estimates}
    columns = list(product(("radl", DENSE), LEVELS))
    datasets, methods = (list(dict.fromkeys(key[at] for key in found)) for at in (0, 3))
    rows, bold, best = [], set(), {}
    for (dataset, *column, _), one in found.items():
        best[dataset, *column] = max(one.mean, best.get((dataset, *column), one.mean))
    for dataset, method in product(datasets, methods):
        cells = [dataset, paper.method_name(method), LEARNS[method]]
        for column in columns:
            one = found.get((dataset, *column, method))
            if one and one.mean == best[dataset, *column]:
                bold.add((len(rows), len(cells)))
            cells.append("{} ({})".format(*_interval(one.mean, one.low, one.high)) if one else DASH)
        rows.append(tuple(cells))
    caption = (
        "Beyond the paper: pretexts for the same encoder, AUPRC on test in % with patient-level "
        "bootstrap 95 % intervals. Densities of one vector a slice are those that each method "
        "chose on validation among GMMs and flow; Dense is that of the features at each position. "
        "Bold: the best of a data set."
    )
    header = ("Data set", "Method", "Learns to", "Slices", "Voxels")
    return Table(caption, (*header, "Dense, slices", "Dense, voxels"), rows, frozenset(bold))


def interval_table(estimates: Iterable[Estimate]) -> Table:
    """Return bootstrap 95 % intervals of the chosen scores on test, in %."""
    rows = [
        (
            *(e.dataset, LEVELS[e.level], COMPARISONS[e.comparison]),
            *(paper.method_name(e.method), paper.score_name(e.score), METRICS[e.metric]),
            *_interval(e.mean, e.low, e.high),
        )
        for e in estimates
    ]
    header = ("Data set", "Task", "Among", "Method", "Score", "Metric", "Mean", "95 % interval")
    return Table("Patient-level bootstrap 95 % intervals on test, in %.", header, rows)


def difference_table(comparisons: Iterable[Comparison]) -> Table:
    """Return paired differences between the best two methods on test, in percentage points."""
    rows = [
        (
            *(c.dataset, LEVELS[c.level], COMPARISONS[c.comparison], METRICS[c.metric]),
            *(paper.method_name(c.best), paper.method_name(c.second)),
            *_interval(c.difference, c.low, c.high),
            DASH if math.isnan(c.p) else "<0.001" if c.p < 0.001 else f"{c.p:.3f}",
        )
        for c in comparisons
    ]
    header = ("Data set", "Task", "Among", "Metric", "Best", "Second", "Difference")
    caption = (
        "Paired difference between the best two methods on test, in percentage points: both on the "
        "same patients of each bootstrap sample."
    )
    return Table(caption, (*header, "95 % interval", "p"), rows)


def _interval(value: float, low: float, high: float) -> tuple[str, str]:
    """Return '52.9' and '48.1 to 57.3', in %; – for what is not defined."""
    ends = DASH if math.isnan(low + high) else f"{100 * low:.1f} to {100 * high:.1f}"
    return percent(value), ends
