"""Tables of bootstrap intervals, and of the differences between methods that they bear out."""

import math
from collections.abc import Iterable

from cradl_jax.evaluation.results import COMPARISONS, LEVELS, METRICS
from cradl_jax.reporting import paper
from cradl_jax.reporting.page import Table
from cradl_jax.reporting.summary import DASH, Comparison, Estimate, Spread, percent


def interval_table(estimates: Iterable[Estimate]) -> Table:
    """Bootstrap 95 % intervals of the chosen scores on test, in %."""
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
    """Paired differences between the best two methods on test, in percentage points."""
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
    """'52.9' and '48.1 to 57.3', in %; – for what is not defined."""
    ends = DASH if math.isnan(low + high) else f"{100 * low:.1f} to {100 * high:.1f}"
    return percent(Spread(value)), ends
