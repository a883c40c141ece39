"""Results in the layout of the paper's tables (Lüth et al. 2023), the paper's figures beside them.

Rows of results.csv in, one `page.Table` out, with the data sets, methods and scores that the rows
hold. `names` maps those data sets that are the paper's to "HCP Synth.", "ISLES" or "BraTS"; rows
in italics then quote the paper.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from itertools import product
from types import MappingProxyType
from typing import Any

from cradl_jax.evaluation.results import COMPARISONS, LEVELS, METRICS, Result, select_scores
from cradl_jax.names import (
    FAE,
    OF_FEATURES,
    PAPER,
    PRETEXTS,
    RESIDUALS,
    VAES,
    components_of,
    is_density,
)
from cradl_jax.reporting import paper
from cradl_jax.reporting.further_tables import (
    beyond_table,
    difference_table,
    interval_table,
    pretext_table,
    threshold_table,
)
from cradl_jax.reporting.page import Table
from cradl_jax.reporting.summary import (
    DASH,
    NAMELESS,
    SPLITS,
    Comparison,
    Estimate,
    Key,
    Names,
    Spreads,
    cited,
    datasets,
    fraction,
    in_order,
    measured,
    of_choices,
    percent,
    remarks,
    title,
    without_choice,
)

HEADLINE, FURTHER = ("auprc", "auroc"), ("dice", "fpr95")
SECTIONS = {
    ("slice", "full"): "5.1",
    ("slice", "radl"): "5.3",
    ("voxel", "full"): "5.2",
    ("voxel", "radl"): "5.3",
}
SHORT = {"test": "test", "val": "val."}
DATA_COLUMNS = {
    "scans": ("Scans", "{:,}"),
    "slices": ("Slices", "{:,}"),
    "anomalous_slices": ("Anomalous slices", "{:.1%}"),
    "anomalous_voxels": ("Anomalous voxels", "{:.3%}"),
}
"""Headings and formats of Table 1, by the fields of `paper.Data`."""


Figures = Mapping[tuple[str, str, str], float]
"""What a split of a data set holds, by data set, "val" or "test", and field of `paper.Data`."""
UNKNOWN: Figures = MappingProxyType({})


def result_tables(
    rows: Sequence[Result],
    sizes: Figures = UNKNOWN,
    names: Names = NAMELESS,
    estimates: Sequence[Estimate] = (),
    comparisons: Sequence[Comparison] = (),
    encoders: Sequence[Estimate] = (),
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
        *(beyond_table(rows, level, HEADLINE) for level in levels),
        *([pretext_table(encoders)] if encoders else []),
        *(threshold_table(rows, level) for level in levels),
        *([interval_table(estimates)] if estimates else []),
        *([difference_table(comparisons)] if comparisons else []),
        *(score_table(rows, level, split, names) for level, split in product(levels, SPLITS)),
        *(further_table(rows, level) for level in levels),
    ]


def data_table(rows: Iterable[Result], sizes: Figures = UNKNOWN, names: Names = NAMELESS) -> Table:
    """Return Table 1: scans, slices, and the shares of anomalous slices and voxels by split."""
    shares = {
        (row.dataset, row.split, f"anomalous_{row.level}s"): row.value
        for row in rows
        if row.metric == "prevalence" and row.level in LEVELS
    }
    theirs = {
        (ours, split, field): value
        for ours, split in product(names, SPLITS)
        for field, value in paper.DATA[names[ours], split]._asdict().items()
    }

    def written(figures: Figures) -> dict[Any, str]:
        texts = ((key, DATA_COLUMNS[key[2]][1].format(value)) for key, value in figures.items())
        return {key: text.replace("%", " %") for key, text in texts}

    columns = list(product(DATA_COLUMNS, SPLITS))
    return layout(
        "Anomalous data sets (as Table 1). The share of anomalous slices or voxels is the AUPRC of "
        "chance.",
        ("Data set", *(f"{DATA_COLUMNS[of][0]}, {SHORT[split]}" for of, split in columns)),
        {
            (dataset,): [(dataset, split, of) for of, split in columns]
            for dataset in dict.fromkeys(dataset for dataset, _, _ in shares)
        },
        written({**sizes, **shares}),
        written(theirs),
        number=1,
        names=names,
    )


def comparison_table(rows: Sequence[Result], level: str, names: Names = NAMELESS) -> Table:
    """Return Table 2 ("slice") or 3 ("voxel"): each method at the score that it chose, in %.

    The last rows are foreign methods, given by their maps, and the trivial baseline chosen in the
    same way. Methods of ours that the paper lacks are in `beyond_table` alone. Bold is the best of
    a column.
    """
    number, columns = paper.BY_METHOD[level], list(product(datasets(rows, level), HEADLINE))
    measured_ones = {row.method for row in rows if row.level == level}
    methods = in_order(measured_ones - {*PRETEXTS, *RESIDUALS}, "cradl cevae vae")
    spreads, best = of_choices(rows, level), {}
    for (dataset, _, _, metric), (mean, _) in spreads.items():
        best[dataset, metric] = max(mean, best.get((dataset, metric), mean))
    return layout(
        f"{title(rows, level, 'test')}, in % (as Table {number}): each method at the score that "
        "it chose on validation. Bold: the best of a column.",
        ("Method", *_headings(columns)),
        {
            (paper.method_name(method),): [
                (dataset, method, "", metric) for dataset, metric in columns
            ]
            for method in methods
        },
        _texts(spreads, percent),
        _texts(cited(number, names), percent),
        bold={key for key, (mean, _) in spreads.items() if mean == best[key[0], key[3]]},
        number=number,
        names=names,
        notes=remarks(rows, level, "test"),
    )


def selection_table(rows: Sequence[Result], names: Names = NAMELESS) -> Table:
    """Return Table 4: the score that each method chose on each data set, in both comparisons."""
    pairs = [
        (dataset, method)
        for dataset in dict.fromkeys(row.dataset for row in rows)
        for method in in_order((r.method for r in rows if r.dataset == dataset), "cradl vae cevae")
        if method in PAPER
    ]
    header = (
        f"{LEVELS[level].capitalize()}, {COMPARISONS[comparison]} ({section})"
        for (level, comparison), section in SECTIONS.items()
    )
    quoted = {
        (ours, *which): score
        for ours, theirs in names.items()
        for (dataset, *which), score in paper.SELECTION.items()
        if dataset == theirs
    }
    return layout(
        "The scores with the best validation AUPRC, by the paper's section (as Table 4). CRADL's "
        "own scores are its densities; those of the VAEs are the terms of their loss.",
        ("Data set", "Method", *header),
        {
            (dataset, paper.method_name(method)): [(dataset, *which, method) for which in SECTIONS]
            for dataset, method in pairs
        },
        {choice: paper.score_name(score) for choice, score in select_scores(rows).items()},
        {choice: paper.score_name(score) for choice, score in quoted.items()},
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
        "sensitivity (lower is better). Bold: chosen on validation."
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
    results = {(row.method, row.score) for row in rows if (row.level, row.split) == (level, split)}
    pairs = [
        (method, score)
        for method in in_order((method for method, _ in results), "vae cevae cradl")
        for score in sorted((score for m, score in results if m == method), key=_score_rank)
    ]
    chosen = select_scores(rows).items()
    return layout(
        caption,
        ("Pre-text", "Gen. model", "Score", *_headings(columns)),
        {
            (paper.method_name(method), *_labels(level, method, score)): [
                (dataset, method, score, metric) for dataset, metric in columns
            ]
            for method, score in pairs
        },
        _texts(measured(rows, level, split), written),
        _texts(cited(number, names), written),
        bold={
            (choice.dataset, choice.method, score, metric)
            for (choice, score), metric in product(chosen, metrics)
            if choice.level == level
        },
        number=number,
        names=names,
        notes=remarks(rows, level, split),
    )


def layout(
    caption: str,
    header: Iterable[str],
    keys: Mapping[tuple[str, ...], Sequence[Hashable]],
    ours: Mapping[Any, str],
    theirs: Mapping[Any, str],
    *,
    number: int,
    names: Names,
    bold: Collection[Hashable] = (),
    notes: Iterable[str] = (),
) -> Table:
    """Return a table of our rows, each followed by the paper's, where it has one.

    Args:
        caption: above the table.
        header: of all columns.
        keys: of the cells of each row, by the texts that it begins with.
        ours: cells by their keys; one that lacks is shown as not defined.
        theirs: those of the paper, by the same keys.
        number: of the paper's table.
        names: see the module.
        bold: keys of our cells to emphasize, where they are defined.
        notes: sentences under the table.
    """
    rows, emphasized, quoted = [], set(), set()
    for label, row in keys.items():
        strong = [at for at, key in enumerate(row, len(label)) if key in bold and key in ours]
        emphasized |= {(len(rows), column) for column in strong}
        rows.append((*label, *(ours.get(key, DASH) for key in row)))
        if any(key in theirs for key in row):
            quoted.add(len(rows))
            quote = (theirs.get(key, DASH) for key in row)
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


def _texts(spreads: Spreads, written: Callable[[float, float], str]) -> dict[Key, str]:
    return {key: written(*spread) for key, spread in spreads.items()}


def _headings(columns: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{dataset} {METRICS[metric]}" for dataset, metric in columns]


def _labels(level: str, method: str, score: str) -> tuple[str, str]:
    """Return generative model and score as Tables 5 to 8 name them."""
    if method in RESIDUALS:
        return "Autoencoder" if method == FAE else "U-Net", paper.score_name(score)
    if score in OF_FEATURES:
        return paper.score_name(score), "Distance"
    if is_density(score):
        return paper.score_name(score), "NLL" if level == "slice" else "NLL-grad"
    return "VAE" if method in VAES else DASH, paper.score_name(score)


def _score_rank(score: str) -> tuple[int, int, str]:
    """Return a score's place: mixtures by size, the paper's other scores in its order, others."""
    if components := components_of(score):
        return 0, components, score
    listed = list(paper.SCORES)
    return (1, listed.index(score), score) if score in listed else (2, 0, score)
