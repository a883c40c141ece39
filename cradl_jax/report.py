"""Results as a CSV file, as tables, and as one self-contained HTML page."""

import base64
import csv
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from matplotlib.figure import Figure

from cradl_jax.errors import InputError

BASELINE = "baseline"
METRICS = {"auprc": "AUPRC", "auroc": "AUROC", "dice": "Best Dice (oracle)", "fpr95": "FPR95 ↓"}
LEVELS = {"slice": "slice-wise detection", "voxel": "voxel-wise localization"}


class Result(NamedTuple):
    """One row of results.csv: one metric of one method's score on one split, in [0, 1]."""

    seed: int
    method: str
    score: str
    dataset: str
    split: str
    level: str
    metric: str
    value: float


class Table(NamedTuple):
    """Cells of text under a header; `bold` numbers the rows to emphasize."""

    caption: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    bold: frozenset[int] = frozenset()


class Picture(NamedTuple):
    """A figure and what it shows, in words."""

    figure: Figure
    caption: str


class Verbatim(NamedTuple):
    """Text whose line breaks and spaces matter, such as a config."""

    text: str


class Section(NamedTuple):
    """A titled part of the page: paragraphs, definitions (a mapping), tables, pictures, text."""

    title: str
    parts: Sequence[str | Mapping[str, object] | Table | Picture | Verbatim]


def write_csv(path: Path, rows: Iterable[Result]) -> None:
    """Write results.csv aside and rename it, so that a reader never sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".partial")
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Result._fields)
        writer.writerows(rows)
    aside.replace(path)


def read_csv(path: Path) -> list[Result]:
    """The rows of a results.csv.

    Raises:
        InputError: other columns than those of `Result`, or a seed or value that is no number.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = tuple(next(reader, ()))
        if header != Result._fields:
            raise InputError(
                f"{path}: expected the columns {','.join(Result._fields)}, found "
                f"{','.join(header) or 'none'}; write it again with experiments.evaluate"
            )
        rows = []
        for cells in reader:
            try:
                seed, *names, value = cells
                rows.append(Result(int(seed), *names, float(value)))
            except (ValueError, TypeError):
                raise InputError(
                    f"{path}, line {reader.line_num}: expected {len(header)} cells with a whole "
                    f"number for seed and a number for value, found {','.join(cells)}"
                ) from None
    return rows


def select_scores(rows: Iterable[Result]) -> dict[tuple[str, str, str], str]:
    """The score of each (dataset, level, method): the best validation AUPRC, mean over seeds.

    Section 4.5: test results take no part. The first of equals wins; scores without a defined
    validation AUPRC cannot win.
    """
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in rows:
        if row.split == "val" and row.metric == "auprc" and not math.isnan(row.value):
            scores = found.setdefault((row.dataset, row.level, row.method), {})
            scores.setdefault(row.score, []).append(row.value)
    return {
        key: max(scores, key=lambda score: fmean(scores[score])) for key, scores in found.items()
    }


def mean_and_deviation(values: Sequence[float]) -> str:
    """'32.5 (0.8)': mean and sample standard deviation in %; one value stands alone; - if none."""
    defined = [100 * value for value in values if not math.isnan(value)]
    if not defined:
        return "–"
    spread = f" ({stdev(defined):.1f})" if len(defined) > 1 else ""
    return f"{fmean(defined):.1f}{spread}"


def result_tables(rows: Sequence[Result]) -> list[Table]:
    """One table per data set and level: every score on test, its validation AUPRC beside it.

    Bold is the score that `select_scores` chooses for a method; baselines come last.
    """
    selected = select_scores(rows)
    groups = dict.fromkeys((row.dataset, row.level) for row in rows)
    return [_result_table(rows, *group, selected) for group in groups]


def _result_table(
    rows: Sequence[Result], dataset: str, level: str, selected: Mapping[tuple[str, str, str], str]
) -> Table:
    values: dict[tuple[str, str, str, str], list[float]] = {}
    prevalence: dict[str, list[float]] = {"test": [], "val": []}
    seeds = set()
    for row in rows:
        if (row.dataset, row.level) == (dataset, level):
            values.setdefault((row.method, row.score, row.split, row.metric), []).append(row.value)
            seeds.add(row.seed)
            if row.metric == "prevalence":
                prevalence.setdefault(row.split, []).append(row.value)
    scores = sorted(dict.fromkeys(key[:2] for key in values), key=lambda key: key[0] == BASELINE)
    lines = [
        (
            method,
            score,
            mean_and_deviation(values.get((method, score, "val", "auprc"), ())),
            *(mean_and_deviation(values.get((method, score, "test", m), ())) for m in METRICS),
        )
        for method, score in scores
    ]
    bold = frozenset(
        number
        for number, (method, score) in enumerate(scores)
        if method != BASELINE and selected.get((dataset, level, method)) == score
    )
    shares = {split: f"{100 * fmean(found):.2f} %" for split, found in prevalence.items() if found}
    caption = (
        f"{dataset}, {LEVELS.get(level, level)}. Prevalence: "
        f"{shares.get('test', 'unknown')} on test, {shares.get('val', 'unknown')} on validation. "
        + ("All figures in %" if len(seeds) < 2 else "Mean (standard deviation) over seeds, in %")
        + "; bold: the score with the best validation AUPRC."
    )
    return Table(caption, ("Method", "Score", "Val. AUPRC", *METRICS.values()), lines, bold)


def tables(rows: Sequence[Result]) -> str:
    """`result_tables` as Markdown."""
    return "\n".join(markdown_table(table) for table in result_tables(rows))


def markdown_table(table: Table) -> str:
    """A table as Markdown, its caption above it."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |\n"

    def escaped(text: str) -> str:
        return " ".join(html.escape(text, quote=False).replace("|", "\\|").split())

    body = (
        line(f"**{escaped(cell)}**" if number in table.bold else escaped(cell) for cell in row)
        for number, row in enumerate(table.rows)
    )
    rule = line("---:" if numeric else "---" for numeric in _numeric_columns(table))
    head = line(escaped(cell) for cell in table.header)
    return f"{escaped(table.caption)}\n\n{head}{rule}{''.join(body)}"


def html_page(title: str, sections: Sequence[Section]) -> str:
    """One page that needs no other file and no network; whatever comes from data is escaped."""
    contents = "".join(
        f'<li><a href="#section-{number}">{html.escape(section.title)}</a></li>'
        for number, section in enumerate(sections)
    )
    body = "".join(
        f'<section id="section-{number}"><h2>{html.escape(section.title)}</h2>'
        + "".join(_html_part(part) for part in section.parts)
        + "</section>\n"
        for number, section in enumerate(sections)
    )
    name = html.escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{STYLE}</style></head>\n<body><h1>{name}</h1>"
        f"<nav><ol>{contents}</ol></nav>\n<main>{body}</main>\n"
        "<footer>For research only. Not a medical device.</footer></body></html>\n"
    )


def _html_part(part: str | Mapping[str, object] | Table | Picture | Verbatim) -> str:
    match part:
        case Table():
            return _html_table(part)
        case Picture(figure, caption):
            png = io.BytesIO()
            figure.savefig(png, format="png", dpi=160)
            data = base64.b64encode(png.getvalue()).decode("ascii")
            text = html.escape(caption)
            return (
                f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
                f"<figcaption>{text}</figcaption></figure>"
            )
        case Verbatim(text):
            return f"<pre>{html.escape(text)}</pre>"
        case Mapping():
            entries = "".join(
                f"<dt>{html.escape(str(key))}</dt><dd>{html.escape(str(value))}</dd>"
                for key, value in part.items()
            )
            return f"<dl>{entries}</dl>"
        case _:
            return f"<p>{html.escape(part)}</p>"


def _html_table(table: Table) -> str:
    numeric = _numeric_columns(table)

    def line(tag: str, cells: Iterable[str], style: str = "") -> str:
        columns = zip(cells, numeric, strict=True)
        written = (
            f"<{tag}{' class=number' if number else ''}>{html.escape(cell)}</{tag}>"
            for cell, number in columns
        )
        return f"<tr{style}>{''.join(written)}</tr>"

    body = "".join(
        line("td", row, " class=bold" if number in table.bold else "")
        for number, row in enumerate(table.rows)
    )
    return (
        f"<div class=scroll><table><caption>{html.escape(table.caption)}</caption>"
        f"<thead>{line('th', table.header)}</thead><tbody>{body}</tbody></table></div>"
    )


def _numeric_columns(table: Table) -> list[bool]:
    """Which columns hold only numbers, to be set flush right."""
    cells = list(zip(*table.rows, strict=True)) or [()] * len(table.header)
    return [
        bool(column) and all(c[:1] in "-–" or c[:1].isdigit() for c in column) for column in cells
    ]


STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --link: #2a6db0; }
@media (prefers-color-scheme: dark) { :root { --link: #8ab8e8; } }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2.5rem auto;
  padding: 0 1.25rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1.2rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .8rem; border-bottom: 1px solid var(--line);
  padding-bottom: .3rem; }
a { color: var(--link); }
nav ol { columns: 2; margin: 0; padding: .8rem 1rem .8rem 2.4rem; background: var(--soft);
  border-radius: .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1.2rem 0; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem .2rem; border-bottom: 1px solid var(--line); }
th { vertical-align: bottom; border-bottom-width: 2px; }
.number { text-align: right; white-space: nowrap; }
.bold td { font-weight: 700; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.4rem; }
dt { opacity: .7; } dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1.6rem 0; } img { max-width: 100%; border-radius: .4rem; background: #fff; }
figcaption { font-size: .92rem; margin-top: .3rem; }
pre { font: .82rem/1.45 ui-monospace, monospace; background: var(--soft); padding: 1rem;
  border-radius: .5rem; overflow-x: auto; }
footer { margin: 4rem 0 1rem; padding-top: .8rem; border-top: 1px solid var(--line);
  font-size: .9rem; opacity: .8; }
"""
