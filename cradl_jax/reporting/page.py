"""Tables, pictures and text as Markdown and as one self-contained HTML page."""

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import jinja2
from matplotlib.figure import Figure

LONG, FIRST = 16, 10
"""Rows of a table that folds if it has more, and how many are seen if none is emphasized."""
_MARKUP = re.compile(r"[\\`*_\[\]|~$#@]")
_LINK = re.compile(r":(?=//)|\bwww(?=\.)", re.I)  # that GitHub would make of plain text


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


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure and what it shows, in words."""

    figure: Figure
    caption: str

    @cached_property
    def png(self) -> bytes:
        """The figure as a PNG file; it is drawn once."""
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=160)
        return file.getvalue()


class Frame(NamedTuple):
    """Another page within the page, cut off from it, that may run its own scripts.

    Attributes:
        title: what it shows, for those who do not see it.
        document: its HTML.
        ratio: of its height to its width.
    """

    title: str
    document: str
    ratio: float


class Verbatim(NamedTuple):
    """Text whose line breaks and spaces matter, such as a config."""

    text: str


class Section(NamedTuple):
    """A titled part of the page: paragraphs, definitions (a mapping), tables, pictures..."""

    title: str
    parts: Sequence[str | Mapping[str, object] | Table | Picture | Frame | Verbatim]


def markdown_text(text: str) -> str:
    """Return text for Markdown, on one line: nothing in it is taken for markup, HTML or a link."""
    line = _MARKUP.sub(r"\\\g<0>", html.escape(" ".join(text.split()), quote=False))
    return _LINK.sub(r"\g<0>\\", line)


def markdown_table(table: Table) -> str:
    """Return a table as Markdown, its caption above it and its notes below."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |\n"

    def cell(row: int, column: int, text: str) -> str:
        mark = "*" * (2 * ((row, column) in table.bold) + (row in table.cited))
        return f"{mark}{markdown_text(text)}{mark}" if text else ""

    body = (
        line(cell(row, column, text) for column, text in enumerate(cells))
        for row, cells in enumerate(table.rows)
    )
    rule = line("---:" if numeric else "---" for numeric in _numeric_columns(table))
    head = line(markdown_text(text) for text in table.header)
    notes = "".join(f"\n{markdown_text(note)}\n" for note in table.notes)
    return f"{markdown_text(table.caption)}\n\n{head}{rule}{''.join(body)}{notes}"


def html_page(title: str, sections: Sequence[Section]) -> str:
    """Return one page that needs no other file and no network; all text from data is escaped.

    Its policy forbids the browser to load anything, and to run scripts unless it has a `Frame`.
    Long tables show a few rows until they are unfolded, which takes no script; in print they are
    whole.
    """
    return _template().render(
        title=title,
        sections=sections,
        framed=any(isinstance(part, Frame) for section in sections for part in section.parts),
        kind=lambda part: type(part).__name__,
        numeric_columns=_numeric_columns,
        folded_rows=_folded_rows,
        base64=lambda content: base64.b64encode(content).decode("ascii"),
    )


@cache
def _template() -> jinja2.Template:
    """Return the page's template; every value in it is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("cradl_jax.reporting", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    ).get_template("page.html.j2")


def _folded_rows(table: Table) -> frozenset[int]:
    """Return the rows of a long table to fold away: all without emphasis, or but for the first."""
    if len(table.rows) <= LONG:
        return frozenset()
    seen = {row for row, _ in table.bold} or set(range(FIRST))
    return frozenset(range(len(table.rows))) - seen


def _numeric_columns(table: Table) -> list[bool]:
    """Return which columns hold only numbers, to be set flush right."""
    cells = list(zip(*table.rows, strict=True)) or [()] * len(table.header)
    return [
        bool(column) and all(c[:1] in "-–−+<" or c[:1].isdigit() for c in column)
        for column in cells
    ]
