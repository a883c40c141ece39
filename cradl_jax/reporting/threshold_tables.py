"""Tables of what lies above the thresholds of healthy scans, beside the oracle's best Dice."""

from collections.abc import Sequence
from itertools import product

from cradl_jax.evaluation.results import Choice, Result, select_scores
from cradl_jax.evaluation.thresholds import RATES
from cradl_jax.reporting import paper
from cradl_jax.reporting.page import Table
from cradl_jax.reporting.summary import (
    DASH,
    Key,
    Spread,
    datasets,
    in_order,
    over_seeds,
    percent,
    title,
    undefined,
    without_choice,
)

AT_RATE = {"dice": "Dice", "sensitivity": "Sensitivity", "fpr": "False positives"}


def threshold_table(rows: Sequence[Result], level: str) -> Table:
    """Each method at the score that it chose, on test, in %, at thresholds found without labels.

    The last row of a data set is the trivial baseline chosen in the same way.
    """
    values, chosen = over_seeds(rows), select_scores(rows)
    methods = in_order({key.method for key in values if key.level == level}, "cradl cevae vae")
    metrics = ("dice", *(f"{metric}@{rate}" for metric, rate in product(AT_RATE, RATES)))
    lines = []
    for dataset, method in product(datasets(values, level), methods):
        score = chosen.get(Choice(dataset, level, "full", method), DASH)
        keys = [Key(dataset, "test", level, method, score, metric) for metric in metrics]
        found = [percent(values.get(key, Spread())) for key in keys]
        lines.append((dataset, paper.method_name(method), paper.score_name(score), *found))
    caption = (
        f"{title(rows, level, 'test')}, in %: each method at the score that it chose on "
        f"validation, and what lies above the thresholds that 1, 5 and 10 % of the {level}s of "
        "healthy validation scans exceed. These thresholds come from healthy scans alone; the best "
        "Dice is an oracle, its threshold chosen on the test labels. False positives are the share "
        f"of the normal {level}s of these test scans above a threshold: how far it is from its "
        "rate shows whether the threshold holds there."
    )
    at_rate = (f"{name} at {100 * float(r):g} %" for name, r in product(AT_RATE.values(), RATES))
    notes = undefined(values, level, "test", "Dice") + without_choice(values, chosen, level)
    header = ("Data set", "Method", "Score", "Best Dice (oracle)", *at_rate)
    return Table(caption, header, lines, notes=tuple(notes))
