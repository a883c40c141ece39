"""Results in the layout of the paper's tables (Lüth et al. 2023), the paper's figures beside them.

Rows of results.csv in, one `page.Table` out, with the data sets, methods and scores that the rows
hold. `names` maps those data sets that are the paper's to "HCP Synth.", "ISLES" or "BraTS"; rows
in italics then quote the paper.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import product
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from cradl_jax.evaluation.results import (
    COMPARISONS,
    LEVELS,
    METRICS,
    Choice,
    Result,
    select_scores,
)
from cradl_jax.names import BASELINE, VAES, components_of, is_density
from cradl_jax.reporting import paper
from cradl_jax.reporting.further_tables import difference_table, interval_table, threshold_table
from cradl_jax.reporting.page import Table
from cradl_jax.reporting.summary import (
    DASH,
    NAMELESS,
    SPLITS,
    UNDEFINED,
    Comparison,
    Estimate,
    Key,
    Names,
    cells,
    cited,
    datasets,
    fraction,
    in_order,
    measured,
    percent,
    title,
    undefined,
    without_choice,
)

HEADLINE, FURTHER = ("auprc", "auroc"), ("dice", "fpr95")
SECTIONS = {
    ("slice", "full"): "5.1",
    ("slice", "radl"): "5.3",
    ("voxel", "full"): "5.2",
    ("voxel", "radl"): "5.3",
}


class Size(NamedTuple):
    """How much one split of a data set holds."""

    scans: int
    slices: int


Sizes = Mapping[tuple[str, str], Size]  # of each (data set, "val" or "test")
UNKNOWN: Sizes = MappingProxyType({})


def result_tables(
    rows: Sequence[Result],
    sizes: Sizes = UNKNOWN,
    names: Names = NAMELESS,
    estimates: Sequence[Estimate] = (),
    comparisons: Sequence[Comparison] = (),
) -> list[Table]:
    """Return all that can be made: Tables 1 to 4, `further_tables`, every score, further metrics.

    Raises:
        InputError: a value of `names` is no data set of the paper.
    """
    paper.check_names(names)
    levels = [level for level in LEVELS if any(row.level == level for row in rows)]
    return [
        data_table(rows, sizes, names),
        *(comparison_table(rows, level, names) for level in levels),
        selection_table(rows, names),
        *(threshold_table(rows, level) for level in levels),
        *([interval_table(estimates)] if estimates else []),
        *([difference_table(comparisons)] if comparisons else []),
        *(score_table(rows, level, split, names) for level, split in product(levels, SPLITS)),
        *(further_table(rows, level) for level in levels),
    ]


def data_table(rows: Iterable[Result], sizes: Sizes = UNKNOWN, names: Names = NAMELESS) -> Table:
    """Return Table 1: scans, slices, and the shares of anomalous slices and voxels by split."""
    shares = {(r.dataset, r.split, r.level): r.value for r in rows if r.metric == "prevalence"}
    theirs = {(*key, "slice"): data.anomalous_slices for key, data in paper.DATA.items()}
    theirs |= {(*key, "voxel"): data.anomalous_voxels for key, data in paper.DATA.items()}
    ours = dict.fromkeys(dataset for dataset, _, _ in shares)
    columns = ("Scans", "Slices", "Anomalous slices", "Anomalous voxels")
    return layout(
        "Anomalous data sets (as Table 1). The share of anomalous slices or voxels is the AUPRC of "
        "chance.",
        ("Data set", *(f"{of}, {split}" for of in columns for split in ("test", "val."))),
        [(dataset,) for dataset in ours],
        [_data_cells(dataset, sizes, shares) for dataset in ours],
        [_data_cells(names.get(dataset, ""), paper.DATA, theirs) for dataset in ours],
        number=1,
        names=names,
    )


def comparison_table(rows: Sequence[Result], level: str, names: Names = NAMELESS) -> Table:
    """Return Table 2 ("slice") or 3 ("voxel"): each method at the score that it chose, in %.

    The last row is the trivial baseline chosen in the same way. Bold is the best of a column.
    """
    number, columns = paper.BY_METHOD[level], list(product(datasets(rows, level), HEADLINE))
    methods = in_order((row.method for row in rows if row.level == level), "cradl cevae vae")
    spreads, chosen = measured(rows, level, "test"), select_scores(rows)

    def key(method: str, dataset: str, metric: str) -> Key:
        return dataset, method, chosen.get(Choice(dataset, level, "full", method), ""), metric

    keys = [[key(method, *column) for column in columns] for method in methods]
    means = np.array([[spreads.get(key, UNDEFINED)[0] for key in row] for row in keys])
    best = np.max(means, axis=0, initial=-1, where=~np.isnan(means))
    quoted = [[(dataset, method, "", metric) for dataset, metric in columns] for method in methods]
    return layout(
        f"{title(rows, level, 'test')}, in % (as Table {number}): each method at the score that "
        "it chose on validation. Bold: the best of a column.",
        ("Method", *_headings(columns)),
        [(paper.method_name(method),) for method in methods],
        cells(spreads, keys, percent),
        cells(cited(number, names), quoted, percent),
        bold=np.argwhere(means == best),
        number=number,
        names=names,
        notes=undefined(rows, level, "test") + without_choice(rows, level),
    )


def selection_table(rows: Sequence[Result], names: Names = NAMELESS) -> Table:
    """Return Table 4: the score that each method chose on each data set, in both comparisons."""
    chosen = select_scores(rows)

    def scores(selection: Mapping[Any, str], dataset: str, method: str) -> list[str]:
        keys = [(dataset, *which, method) for which in SECTIONS]
        return [paper.score_name(selection.get(key, DASH)) for key in keys]

    pairs = [
        (dataset, method)
        for dataset in dict.fromkeys(row.dataset for row in rows)
        for method in in_order((r.method for r in rows if r.dataset == dataset), "cradl vae cevae")
        if method != BASELINE
    ]
    header = (
        f"{LEVELS[level].capitalize()}, {COMPARISONS[comparison]} ({section})"
        for (level, comparison), section in SECTIONS.items()
    )
    return layout(
        "The scores with the best validation AUPRC, by the paper's section (as Table 4). CRADL's "
        "own scores are its densities; those of the VAEs are the terms of their loss.",
        ("Data set", "Method", *header),
        [(dataset, paper.method_name(method)) for dataset, method in pairs],
        [scores(chosen, dataset, method) for dataset, method in pairs],
        [scores(paper.SELECTION, names.get(dataset, ""), method) for dataset, method in pairs],
        number=4,
        names=names,
        notes=[note for level in LEVELS for note in without_choice(rows, level)],
    )


def score_table(rows: Sequence[Result], level: str, split: str, names: Names = NAMELESS) -> Table:
    """Return Table 5, 6 ("voxel" on "test", "val") or 7, 8 ("slice"): every score, as a share.

    Bold is what a method chose on validation, in either comparison. Trivial baselines come last.
    """
    caption = (
        f"{title(rows, level, split)} (as Table {paper.BY_SCORE[level, split]}): every score. "
        "Bold: chosen on validation."
    )
    return every_score(rows, level, split, HEADLINE, fraction, caption, names)


def further_table(rows: Sequence[Result], level: str) -> Table:
    """Return best Dice and FPR95 of every score on test, in %."""
    caption = (
        f"{title(rows, level, 'test')}, in %: further metrics. The best Dice is an oracle, its "
        "threshold chosen on the test labels; FPR95 is the false-positive rate at 95 % "
        "sensitivity, of which less is better. Bold: chosen on validation."
    )
    return every_score(rows, level, "test", FURTHER, percent, caption)


def every_score(
    rows: Sequence[Result],
    level: str,
    split: str,
    metrics: Sequence[str],
    written: Callable[[float, float], str],
    caption: str,
    names: Names = NAMELESS,
) -> Table:
    """Return some metrics of every score, chosen ones bold, in the layout of Tables 5 to 8."""
    number, columns = paper.BY_SCORE[level, split], list(product(datasets(rows, level), metrics))
    found = {(row.method, row.score) for row in rows if (row.level, row.split) == (level, split)}
    pairs = [
        (method, score)
        for method in in_order((method for method, _ in found), "vae cevae cradl")
        for score in sorted((score for m, score in found if m == method), key=_score_rank)
    ]
    keys = [[(dataset, *pair, metric) for dataset, metric in columns] for pair in pairs]
    chosen = {(c.dataset, c.method, s) for c, s in select_scores(rows).items() if c.level == level}
    return layout(
        caption,
        ("Pre-text", "Gen. model", "Score", *_headings(columns)),
        [(paper.method_name(method), *_labels(level, method, score)) for method, score in pairs],
        cells(measured(rows, level, split), keys, written),
        cells(cited(number, names), keys, written),
        bold=np.argwhere([[key[:3] in chosen for key in row] for row in keys]),
        number=number,
        names=names,
        notes=undefined(rows, level, split) + without_choice(rows, level),
    )


def layout(
    caption: str,
    header: Iterable[str],
    labels: Sequence[tuple[str, ...]],
    ours: Sequence[Sequence[str]],
    theirs: Sequence[Sequence[str]],
    *,
    number: int,
    names: Names,
    bold: Collection[Sequence[int]] | np.ndarray = (),
    notes: Iterable[str] = (),
) -> Table:
    """Return a table of our rows, each followed by the paper's, where it has one.

    Args:
        caption: above the table.
        header: of all columns.
        labels: the first cells of each row.
        ours: [rows][columns] the other cells.
        theirs: [rows][columns] those of the paper.
        number: of the paper's table.
        names: see the module.
        bold: (row, column) of our cells to emphasize, where they are defined.
        notes: sentences under the table.
    """
    rows, emphasized, quoted = [], set(), set()
    for place, (label, own, quote) in enumerate(zip(labels, ours, theirs, strict=True)):
        strong = [column for row, column in bold if row == place and own[column] != DASH]
        emphasized |= {(len(rows), len(label) + column) for column in strong}
        rows.append((*label, *own))
        if any(cell != DASH for cell in quote):
            quoted.add(len(rows))
            rows.append((*[""] * (len(label) - 1), "paper", *quote))
    if quoted:
        which = "; ".join(
            f"{theirs} for {ours}" for ours, theirs in names.items() if ours != theirs
        )
        source = f"In italics: Table {number} of the paper, Lüth et al. (2023)"
        notes = (*notes, f"{source}{f': {which}' if which else ''}.")
    return Table(
        caption, tuple(header), rows, frozenset(emphasized), frozenset(quoted), tuple(notes)
    )


def _data_cells(
    dataset: str,
    sizes: Mapping[tuple[str, str], Size | paper.Data],
    shares: Mapping[tuple[str, str, str], float],
) -> list[str]:
    """Return scans, slices, and shares of anomalous slices and voxels, each on test and val."""
    counts = [sizes.get((dataset, split)) for split in SPLITS]
    scans = [f"{count.scans:,}" if count else DASH for count in counts]
    slices = [f"{count.slices:,}" if count else DASH for count in counts]
    prevalences = [
        f"{100 * shares[key]:.{digits}f} %" if key in shares else DASH
        for level, digits in (("slice", 1), ("voxel", 3))
        for key in ((dataset, split, level) for split in SPLITS)
    ]
    return scans + slices + prevalences


def _headings(columns: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{dataset} {METRICS[metric]}" for dataset, metric in columns]


def _labels(level: str, method: str, score: str) -> tuple[str, str]:
    """Return generative model and score as Tables 5 to 8 name them."""
    if is_density(score):
        return paper.score_name(score), "NLL" if level == "slice" else "NLL-grad"
    return "VAE" if method in VAES else DASH, paper.score_name(score)


def _score_rank(score: str) -> tuple[int, int, str]:
    """Return a score's place: mixtures by size, the paper's other scores in its order, others."""
    if components := components_of(score):
        return 0, components, score
    listed = list(paper.SCORES)
    return (1, listed.index(score), score) if score in listed else (2, 0, score)
