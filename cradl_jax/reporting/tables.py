"""Results in the layout of the paper's tables (Lüth et al. 2023), the paper's figures beside them.

Rows of results.csv in, one `report.Table` out, with the data sets, methods and scores that the
rows hold. `names` maps those data sets that are the paper's to "HCP Synth.", "ISLES" or "BraTS";
rows in italics then quote the paper.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from types import MappingProxyType
from typing import NamedTuple

from cradl_jax.evaluation.results import (
    BASELINE,
    COMPARISONS,
    LEVELS,
    METRICS,
    Choice,
    Result,
    is_density,
    select_scores,
)
from cradl_jax.reporting import paper
from cradl_jax.reporting.interval_tables import difference_table, interval_table
from cradl_jax.reporting.page import Table
from cradl_jax.reporting.summary import (
    DASH,
    NAMELESS,
    SPLITS,
    Comparison,
    Estimate,
    Key,
    Names,
    Spread,
    cited,
    datasets,
    fraction,
    in_order,
    over_seeds,
    percent,
    title,
    undefined,
    without_choice,
)
from cradl_jax.reporting.threshold_tables import threshold_table

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


class _Line(NamedTuple):
    """A row of a table, which of its columns are bold, and whether it quotes the paper."""

    cells: tuple[str, ...]
    bold: frozenset[int] = frozenset()
    cited: bool = False


def result_tables(
    rows: Sequence[Result],
    sizes: Sizes = UNKNOWN,
    names: Names = NAMELESS,
    estimates: Sequence[Estimate] = (),
    comparisons: Sequence[Comparison] = (),
) -> list[Table]:
    """All that can be made: Tables 1 to 4, thresholds, intervals, every score, further metrics.

    Raises:
        InputError: a value of `names` is no data set of the paper.
    """
    paper.check_names(names)
    levels = [level for level in LEVELS if any(row.level == level for row in rows)]
    found = [data_table(rows, sizes, names)]
    found += [comparison_table(rows, level, names) for level in levels]
    found.append(selection_table(rows, names))
    found += [threshold_table(rows, level) for level in levels]
    found += [interval_table(estimates)] if estimates else []
    found += [difference_table(comparisons)] if comparisons else []
    found += [score_table(rows, *which, names) for which in product(levels, SPLITS)]
    return found + [further_table(rows, level) for level in levels]


def data_table(rows: Iterable[Result], sizes: Sizes = UNKNOWN, names: Names = NAMELESS) -> Table:
    """Table 1: scans, slices, and the shares of anomalous slices and voxels of each split."""
    shares = {(r.dataset, r.split, r.level): r.value for r in rows if r.metric == "prevalence"}
    theirs = {(*key, "slice"): data.anomalous_slices for key, data in paper.DATA.items()}
    theirs |= {(*key, "voxel"): data.anomalous_voxels for key, data in paper.DATA.items()}
    lines = []
    for dataset in dict.fromkeys(dataset for dataset, _, _ in shares):
        lines.append(_Line((dataset, *_data_cells(dataset, sizes, shares))))
        lines += _quote(("paper",), _data_cells(names.get(dataset), paper.DATA, theirs))
    columns = ("Scans", "Slices", "Anomalous slices", "Anomalous voxels")
    header = ("Data set", *(f"{of}, {split}" for of in columns for split in ("test", "val.")))
    caption = (
        "Anomalous data sets (as Table 1). The share of anomalous slices or voxels is the AUPRC of "
        "chance."
    )
    return _table(caption, header, lines, 1, names)


def comparison_table(rows: Sequence[Result], level: str, names: Names = NAMELESS) -> Table:
    """Table 2 ("slice") or 3 ("voxel"): each method at the score that it chose, on test, in %.

    The last row is the trivial baseline chosen in the same way. Bold is the best of a column.
    """
    values, chosen = over_seeds(rows), select_scores(rows)
    columns = list(product(datasets(values, level), HEADLINE))
    table = paper.BY_METHOD[level]
    found: dict[str, list[Spread]] = {}
    methods = {key.method for key in values if key.level == level}
    for method in in_order(methods, "cradl cevae vae"):
        scores = [chosen.get(Choice(dataset, level, "full", method), "") for dataset, _ in columns]
        keys = [
            Key(dataset, "test", level, method, score, metric)
            for (dataset, metric), score in zip(columns, scores, strict=True)
        ]
        found[method] = [values.get(key, Spread()) for key in keys]
    best = [
        max((mean for mean, _ in column if not math.isnan(mean)), default=math.nan)
        for column in zip(*found.values(), strict=True)
    ]
    lines = []
    for method, spreads in found.items():
        bold = frozenset(n for n, (mean, _) in enumerate(spreads) if mean == best[n])
        lines.append(_Line((paper.method_name(method), *map(percent, spreads)), _right(bold, 1)))
        keys = [Key(dataset, "", level, method, "", metric) for dataset, metric in columns]
        lines += _quote(("paper",), [percent(cited(table, key, names)) for key in keys])
    caption = (
        f"{title(rows, level, 'test')}, in % (as Table {table}): each method at the score that it "
        "chose on validation. Bold: the best of a column."
    )
    notes = undefined(values, level, "test") + without_choice(values, chosen, level)
    return _table(caption, ("Method", *_headings(columns)), lines, table, names, notes)


def selection_table(rows: Sequence[Result], names: Names = NAMELESS) -> Table:
    """Table 4: the score that each method chose on each data set, in both comparisons."""
    values, chosen = over_seeds(rows), select_scores(rows)

    def cells(selection: Mapping[tuple, str], dataset: str, method: str) -> list[str]:
        keys = [(dataset, *which, method) for which in SECTIONS]
        return [paper.score_name(selection.get(key, DASH)) for key in keys]

    lines = []
    for dataset in dict.fromkeys(key.dataset for key in values):
        methods = {key.method for key in values if key.dataset == dataset} - {BASELINE}
        for method in in_order(methods, "cradl vae cevae"):
            name = paper.method_name(method)
            lines.append(_Line((dataset, name, *cells(chosen, dataset, method))))
            theirs = cells(paper.SELECTION, names.get(dataset, ""), method)
            lines += _quote(("", "paper"), theirs)
    header = tuple(
        f"{LEVELS[level].capitalize()}, {COMPARISONS[comparison]} ({section})"
        for (level, comparison), section in SECTIONS.items()
    )
    caption = (
        "The scores with the best validation AUPRC, by the paper's section (as Table 4). CRADL's "
        "own scores are its densities; those of the VAEs are the terms of their loss."
    )
    notes = [note for level in LEVELS for note in without_choice(values, chosen, level)]
    return _table(caption, ("Data set", "Method", *header), lines, 4, names, notes)


def score_table(rows: Sequence[Result], level: str, split: str, names: Names = NAMELESS) -> Table:
    """Tables 5, 6 ("voxel" on "test", "val") and 7, 8 ("slice"): every score, as a share of one.

    Bold is what a method chose on validation, in either comparison. Trivial baselines come last.
    """
    caption = (
        f"{title(rows, level, split)} (as Table {paper.BY_SCORE[level, split]}): every score. "
        "Bold: chosen on validation."
    )
    return _every_score(rows, level, split, HEADLINE, fraction, caption, names)


def further_table(rows: Sequence[Result], level: str) -> Table:
    """Best Dice and FPR95 of every score on test, in %, which the paper does not report."""
    caption = (
        f"{title(rows, level, 'test')}, in %: further metrics. The best Dice is an oracle, its "
        "threshold chosen on the test labels; FPR95 is the false-positive rate at 95 % "
        "sensitivity, of which less is better. Bold: chosen on validation."
    )
    return _every_score(rows, level, "test", FURTHER, percent, caption, NAMELESS)


def _every_score(
    rows: Sequence[Result],
    level: str,
    split: str,
    metrics: tuple[str, ...],
    written: Callable[[Spread], str],
    caption: str,
    names: Names,
) -> Table:
    values, chosen = over_seeds(rows), select_scores(rows)
    columns = list(product(datasets(values, level), metrics))
    table = paper.BY_SCORE[level, split]
    pairs = {(key.method, key.score) for key in values if key[1:3] == (split, level)}
    lines = []
    for method in in_order({method for method, _ in pairs}, "vae cevae cradl"):
        for score in sorted((s for m, s in pairs if m == method), key=_score_rank):
            keys = [
                Key(dataset, split, level, method, score, metric) for dataset, metric in columns
            ]
            found = [written(values.get(key, Spread())) for key in keys]
            bold = frozenset(
                n
                for n, (dataset, _) in enumerate(columns)
                for comparison in COMPARISONS
                if chosen.get(Choice(dataset, level, comparison, method)) == score
                and found[n] != DASH
            )
            labels = (paper.method_name(method), *_labels(level, method, score))
            lines.append(_Line((*labels, *found), _right(bold, len(labels))))
            theirs = [written(cited(table, key, names)) for key in keys]
            lines += _quote(("", "", "paper"), theirs)
    header = ("Pre-text", "Gen. model", "Score", *_headings(columns))
    notes = undefined(values, level, split) + without_choice(values, chosen, level)
    return _table(caption, header, lines, table, names, notes)


def _table(
    caption: str,
    header: tuple[str, ...],
    lines: Sequence[_Line],
    number: int = 0,
    names: Names = NAMELESS,
    notes: Sequence[str] = (),
) -> Table:
    """A table of lines; what is quoted comes from the paper's table of this number."""
    quoted = frozenset(row for row, line in enumerate(lines) if line.cited)
    if quoted:
        which = "; ".join(f"{name} for {ours}" for ours, name in names.items() if ours != name)
        source = f"In italics: Table {number} of the paper, Lüth et al. (2023)"
        notes = (*notes, f"{source}{f': {which}' if which else ''}.")
    bold = frozenset((row, column) for row, line in enumerate(lines) for column in line.bold)
    return Table(caption, header, [line.cells for line in lines], bold, quoted, tuple(notes))


def _quote(labels: tuple[str, ...], cells: Sequence[str]) -> Iterator[_Line]:
    """A line of the paper's figures, if it has any."""
    if any(cell != DASH for cell in cells):
        yield _Line((*labels, *cells), cited=True)


def _data_cells(
    dataset: str | None, sizes: Mapping, shares: Mapping[tuple[str | None, str, str], float]
) -> list[str]:
    """Scans, slices, and shares of anomalous slices and voxels, each on test and validation."""
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
    """Generative model and score as Tables 5 to 8 name them."""
    if is_density(score):
        return paper.score_name(score), "NLL" if level == "slice" else "NLL-grad"
    return "VAE" if method in ("vae", "cevae") else DASH, paper.score_name(score)


def _right(columns: Iterable[int], labels: int) -> frozenset[int]:
    """The same columns, counted from the left of so many labels."""
    return frozenset(column + labels for column in columns)


def _score_rank(score: str) -> tuple[int, int, str]:
    """Mixtures by their components, then the paper's other scores in its order, then any."""
    if score.startswith("gmm") and is_density(score):
        return 0, int(score[3:]), score
    known = list(paper.SCORES)
    return (1, known.index(score), score) if score in known else (2, 0, score)
