import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from cradl_jax.errors import InputError
from cradl_jax.evaluation.results import (
    COMPARISONS,
    Choice,
    Result,
    is_candidate,
    read_csv,
    select_scores,
    write_csv,
)
from cradl_jax.names import is_density
from cradl_jax.reporting.page import (
    FIRST,
    LONG,
    Picture,
    Section,
    Table,
    Verbatim,
    html_page,
    markdown_table,
)
from tests.helpers.browser import browse, needs_chromium, printed_pages

HOSTILE = "<script>alert('1')</script> & \"sub|01\""


def result(score, value, split="val", seed=0, method="cradl", level="slice", metric="auprc"):
    return Result(seed, method, score, "synth", split, level, metric, value)


TABLE = Table(
    "Caption",
    ("Method", "AUPRC", "p"),
    [("CRADL", "52.9 (1.2)", "<0.001"), ("paper", "53.0", "–"), ("", "-1.0", "0.5")],
    bold=frozenset({(0, 1), (1, 1)}),
    cited=frozenset({1}),
    notes=("First note.", "Second."),
)


def long_table(rows, **more):
    return Table("Long", ("n", "x"), [(str(n), HOSTILE) for n in range(rows)], **more)


class Page(HTMLParser):
    """All tags with their attributes, all text, and the cells of every table."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.cells, self.in_cell = [], "", [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self.in_cell:
            self.cells[-1] += data


@given(
    st.lists(
        st.builds(
            Result,
            st.integers(0, 9),
            *[st.text("ab,\"'\n é", min_size=1)] * 6,
            st.floats(allow_nan=False, allow_infinity=False),
        )
    )
)
def test_csv_round_trip(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "results.csv"
    write_csv(path, rows)
    assert read_csv(path) == rows


def test_csv_has_the_named_columns_keeps_nan_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "run" / "results.csv"
    write_csv(path, [result("gmm1", float("nan"))])
    lines = path.read_text().splitlines()
    assert lines[0] == "seed,method,score,dataset,split,level,metric,value"
    assert np.isnan(read_csv(path)[0].value)
    assert [entry.name for entry in path.parent.iterdir()] == ["results.csv"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected the columns seed,method.*found none"),
        ("seed,score\n", "found seed,score"),
        (",".join(Result._fields) + "\n0,a,b,c,d,e,f,high\n", "line 2"),
        (",".join(Result._fields) + "\n0,a,b,c,d,e,f,g,0.5\n", "line 2"),
    ],
)
def test_a_foreign_csv_is_refused(tmp_path, content, message):
    path = tmp_path / "results.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_csv(path)


def test_results_that_are_missing_are_named(tmp_path):
    with pytest.raises(InputError, match=r"results\.csv: expected results .*no such file"):
        read_csv(tmp_path / "results.csv")


def test_selection_is_by_validation_auprc_per_level_and_never_by_test():
    rows = [
        result("gmm1", 0.3),
        result("gmm1", 0.9, split="test"),
        result("gmm2", 0.4),
        result("gmm2", 0.1, split="test"),
        result("gmm2", 0.2, metric="auroc"),
        result("gmm1", 0.2, level="voxel"),
        result("gmm2", 0.1, level="voxel"),
        result("area", 0.5, method="baseline"),
    ]
    expected = {
        ("synth", "slice", "full", "cradl"): "gmm2",
        ("synth", "slice", "radl", "cradl"): "gmm2",
        ("synth", "slice", "beyond", "cradl"): "gmm2",
        ("synth", "voxel", "full", "cradl"): "gmm1",
        ("synth", "voxel", "radl", "cradl"): "gmm1",
        ("synth", "voxel", "beyond", "cradl"): "gmm1",
        ("synth", "slice", "full", "baseline"): "area",
        ("synth", "slice", "beyond", "baseline"): "area",
    }
    assert select_scores(rows) == expected
    assert select_scores([row for row in rows if row.split != "test"]) == expected
    assert select_scores([row for row in rows if row.split == "test"]) == {}


@pytest.mark.parametrize("method", ["vae", "cevae"])
def test_vaes_choose_among_own_terms_in_one_comparison_and_densities_in_the_other(method):
    rows = [result(s, v, method=method) for s, v in (("gmm8", 0.9), ("elbo", 0.4), ("kl", 0.5))]
    rows += [result("flow", 0.95, method=method), result("dense", 0.99, method=method)]
    assert select_scores(rows) == {
        Choice("synth", "slice", "full", method): "kl",
        Choice("synth", "slice", "radl", method): "flow",
        Choice("synth", "slice", "beyond", method): "dense",
    }


@pytest.mark.parametrize("method", ["cradl", "vae", "cevae"])
def test_the_papers_comparisons_never_choose_dense_densities(method):
    assert not any(is_candidate(comparison, method, "dense") for comparison in ("full", "radl"))
    assert is_candidate("beyond", method, "dense") and is_candidate("beyond", method, "gmm1")
    assert is_candidate("beyond", "baseline", "pixel")
    assert [is_candidate(one, "dae", "rec") for one in COMPARISONS] == [False, False, True]
    assert [is_candidate(one, "mae", "flow") for one in COMPARISONS] == [False, True, True]
    assert [is_candidate(one, "mae", "dense") for one in COMPARISONS] == [False, False, True]


def test_candidates_of_each_comparison():
    densities, terms = ("gmm1", "gmm16", "flow"), ("elbo", "kl", "rec", "kl_grad", "combi")
    assert all(map(is_density, densities)) and not any(map(is_density, (*terms, "gmm", "area")))
    for method in ("vae", "cevae"):
        assert [is_candidate("full", method, s) for s in (*densities, *terms)] == [False] * 3 + [
            True
        ] * 5
        assert all(is_candidate("radl", method, score) for score in densities)
    assert all(is_candidate(c, "cradl", score) for c in ("full", "radl") for score in densities)
    assert is_candidate("full", "baseline", "area") and not is_candidate("radl", "baseline", "area")


def test_selection_is_by_the_mean_over_seeds_and_skips_undefined_values():
    rows = [
        result("gmm1", 0.5, seed=0),
        result("gmm1", 0.1, seed=1),
        result("gmm2", 0.4, seed=0),
        result("gmm2", 0.4, seed=1),
        result("gmm4", float("nan")),
    ]
    assert set(select_scores(rows).values()) == {"gmm2"}
    assert select_scores([result("gmm1", float("nan"))]) == {}


def test_the_first_of_equals_is_selected():
    assert set(select_scores([result("gmm2", 0.4), result("gmm1", 0.4)]).values()) == {"gmm2"}


def test_markdown_of_a_table():
    assert markdown_table(TABLE).splitlines() == [
        "Caption",
        "",
        "| Method | AUPRC | p |",
        "| --- | ---: | ---: |",
        "| CRADL | **52.9 (1.2)** | &lt;0.001 |",
        "| *paper* | ***53.0*** | *–* |",
        "|  | -1.0 | 0.5 |",
        "",
        "First note.",
        "",
        "Second.",
    ]


def test_page_sets_numbers_flush_right_and_marks_bold_and_cited_cells():
    page = Page(html_page("t", [Section("s", [TABLE])]))
    classes = [attrs.get("class") for tag, attrs in page.tags if tag in ("tr", "th", "td")]
    assert classes == [
        *(None, None, "number", "number"),
        *(None, None, "number bold", "number"),
        *("cited", None, "number bold", "number"),
        *(None, None, "number", "number"),
    ]
    assert "First note." in page.text and "Second." in page.text


def test_markdown_escapes_cells():
    line = markdown_table(Table("c", ("h",), [(HOSTILE,)])).splitlines()[4]
    assert "<" not in line and "sub\\|01" in line


def small_figure():
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    return figure


def test_page_escapes_whatever_comes_from_data():
    table = Table(HOSTILE, (HOSTILE,), [(HOSTILE,)], notes=(HOSTILE,))
    parts = [HOSTILE, {HOSTILE: HOSTILE}, table, Verbatim(HOSTILE)]
    page = Page(html_page(HOSTILE, [Section(HOSTILE, [*parts, Picture(small_figure(), HOSTILE)])]))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(HOSTILE) == 13
    assert [attrs["alt"] for tag, attrs in page.tags if tag == "img"] == [HOSTILE]


def test_page_needs_nothing_else_and_links_its_sections():
    page = html_page(
        "Run", [Section("One", ["text"]), Section("Two", [Picture(small_figure(), "p")])]
    )
    parsed = Page(page)
    links = [a[name] for _, a in parsed.tags for name in ("src", "href") if name in a]
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not re.search(r"@import|url\(|<link|<script", page)
    ids = {attrs["id"] for _, attrs in parsed.tags if "id" in attrs}
    assert {link[1:] for link in links if link[0] == "#"} == ids
    assert "Not a medical device" in parsed.text


def test_page_and_markdown_show_the_same_cells():
    cells = [cell for row in (TABLE.header, *TABLE.rows) for cell in row]
    assert Page(html_page("t", [Section("s", [TABLE])])).cells == cells
    lines = [line for line in markdown_table(TABLE).splitlines() if line[:1] == "|"]
    written = [line[2:-2].split(" | ") for line in lines if "---" not in line]
    assert [html.unescape(cell.strip("*")) for row in written for cell in row] == cells


@pytest.mark.parametrize(
    ("table", "seen", "summary"),
    [
        (long_table(LONG), None, None),
        (long_table(LONG + 1), set(range(FIRST)), "All 17 rows; here the first ones"),
        (
            long_table(40, bold=frozenset({(3, 0), (39, 1)})),
            {3, 39},
            "All 40 rows; here those with bold figures",
        ),
    ],
)
def test_long_tables_fold_and_all_their_rows_are_in_the_page(table, seen, summary):
    page = Page(html_page("t", [Section("s", [table])]))
    assert page.cells == [cell for row in (table.header, *table.rows) for cell in row]
    rows = [attrs.get("class") for tag, attrs in page.tags if tag == "tr"][1:]
    folded = {row for row, name in enumerate(rows) if name == "folded"}
    assert folded == (set(range(len(rows))) - seen if seen else set())
    assert [tag for tag, _ in page.tags].count("details") == bool(seen)
    assert "script" not in {tag for tag, _ in page.tags}
    assert summary is None or summary in page.text


def last_ink(page, folder):
    """The lowest line of a page that something stands in, in pixels."""
    folder.mkdir()
    shot, errors, urls = browse(page, folder)
    assert errors == [] and urls == []
    return np.flatnonzero(np.ptp(shot.mean(-1), axis=1) > 0.3).max()


@needs_chromium
def test_a_table_unfolds_in_a_browser(tmp_path):
    rows = [(str(n), "x") for n in range(20)]
    page = html_page("t", [Section("s", [Table("c", ("n", "x"), rows)])])
    folded = last_ink(page, tmp_path / "folded")
    unfolded = last_ink(page.replace("<details>", "<details open>"), tmp_path / "unfolded")
    assert unfolded - folded > 10 * 20, "ten more rows of a line each"


@needs_chromium
def test_a_folded_table_is_whole_in_print(tmp_path):
    def sheets(rows):
        return printed_pages(html_page("t", [Section("s", [long_table(rows)])]), tmp_path)

    assert sheets(LONG) == 1 and sheets(200) > 3
