"""Tables, pictures and text as Markdown and as one self-contained HTML page."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure


class Table(NamedTuple):
    """Cells of text under a header.

    Attributes:
        caption: above the table.
        header: a cell a column.
        rows: cells of text.
        bold: (row, column) of the cells to emphasize.
        cited: numbers of the rows that quote another's figures, set apart in italics.
        notes: sentences under the table.
    """

    caption: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    bold: frozenset[tuple[int, int]] = frozenset()
    cited: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


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


def markdown_table(table: Table) -> str:
    """A table as Markdown, its caption above it and its notes below."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |\n"

    def escaped(text: str) -> str:
        return " ".join(html.escape(text, quote=False).replace("|", "\\|").split())

    def cell(row: int, column: int, text: str) -> str:
        mark = "*" * (2 * ((row, column) in table.bold) + (row in table.cited))
        return f"{mark}{escaped(text)}{mark}" if text else ""

    body = (
        line(cell(row, column, text) for column, text in enumerate(cells))
        for row, cells in enumerate(table.rows)
    )
    rule = line("---:" if numeric else "---" for numeric in _numeric_columns(table))
    head = line(escaped(text) for text in table.header)
    notes = "".join(f"\n{escaped(note)}\n" for note in table.notes)
    return f"{escaped(table.caption)}\n\n{head}{rule}{''.join(body)}{notes}"


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

    def cell(tag: str, text: str, *classes: str) -> str:
        names = " ".join(filter(None, classes))
        attribute = f' class="{names}"' if names else ""
        return f"<{tag}{attribute}>{html.escape(text)}</{tag}>"

    def align(column: int) -> str:
        return "number" if numeric[column] else ""

    head = "".join(cell("th", text, align(column)) for column, text in enumerate(table.header))
    body = "".join(
        f"<tr{' class=cited' if row in table.cited else ''}>"
        + "".join(
            cell("td", text, align(column), "bold" if (row, column) in table.bold else "")
            for column, text in enumerate(cells)
        )
        + "</tr>"
        for row, cells in enumerate(table.rows)
    )
    notes = "".join(f"<p class=note>{html.escape(note)}</p>" for note in table.notes)
    return (
        f"<div class=scroll><table><caption>{html.escape(table.caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{notes}"
    )


def _numeric_columns(table: Table) -> list[bool]:
    """Which columns hold only numbers, to be set flush right."""
    cells = list(zip(*table.rows, strict=True)) or [()] * len(table.header)
    return [
        bool(column) and all(c[:1] in "-–−+<" or c[:1].isdigit() for c in column)
        for column in cells
    ]


STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --link: #2a6db0; }
@media (prefers-color-scheme: dark) { :root { --link: #8ab8e8; } }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 70rem; margin: 2.5rem auto;
  padding: 0 1.25rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1.2rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .8rem; border-bottom: 1px solid var(--line);
  padding-bottom: .3rem; }
a { color: var(--link); }
nav ol { columns: 2; margin: 0; padding: .8rem 1rem .8rem 2.4rem; background: var(--soft);
  border-radius: .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1.2rem 0 .6rem; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem .2rem; border-bottom: 1px solid var(--line); }
th { vertical-align: bottom; border-bottom-width: 2px; }
.number { text-align: right; } td.number { white-space: nowrap; }
.bold { font-weight: 700; } .cited td { font-style: italic; opacity: .7; }
.note { font-size: .92rem; margin: 0 0 .3rem; }
p { max-width: 50rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.4rem; }
dt { opacity: .7; } dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1.6rem 0; } img { max-width: 100%; border-radius: .4rem; background: #fff; }
figcaption { font-size: .92rem; margin-top: .3rem; }
pre { font: .82rem/1.45 ui-monospace, monospace; background: var(--soft); padding: 1rem;
  border-radius: .5rem; overflow-x: auto; }
footer { margin: 4rem 0 1rem; padding-top: .8rem; border-top: 1px solid var(--line);
  font-size: .9rem; opacity: .8; }
"""
