import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from cradl_jax import figures, report
from cradl_jax.errors import InputError
from cradl_jax.metrics import in_memory, operating_points
from cradl_jax.report import (
    Picture,
    Result,
    Section,
    Table,
    Verbatim,
    html_page,
    markdown_table,
    mean_and_deviation,
    read_csv,
    result_tables,
    select_scores,
    tables,
    write_csv,
)

HOSTILE = "<script>alert('1')</script> & \"sub|01\""


def result(score, value, split="val", seed=0, method="cradl", level="slice", metric="auprc"):
    return Result(seed, method, score, "synth", split, level, metric, value)


ROWS = [
    result("gmm1", 0.3),
    result("gmm1", 0.9, split="test"),
    result("gmm2", 0.4),
    result("gmm2", 0.1, split="test"),
    result("gmm1", 0.2, level="voxel"),
    result("gmm2", 0.1, level="voxel"),
    result("area", 0.5, method="baseline"),
    result("area", 0.31, method="baseline", split="test"),
    result("gmm1", 0.205, split="test", metric="prevalence"),
]


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


def test_selection_is_by_validation_auprc_per_level_and_never_by_test():
    expected = {
        ("synth", "slice", "cradl"): "gmm2",
        ("synth", "voxel", "cradl"): "gmm1",
        ("synth", "slice", "baseline"): "area",
    }
    assert select_scores(ROWS) == expected
    assert select_scores([row for row in ROWS if row.split != "test"]) == expected
    assert select_scores([row for row in ROWS if row.split == "test"]) == {}


def test_selection_is_by_the_mean_over_seeds_and_skips_undefined_values():
    rows = [
        result("gmm1", 0.5, seed=0),
        result("gmm1", 0.1, seed=1),
        result("gmm2", 0.4, seed=0),
        result("gmm2", 0.4, seed=1),
        result("gmm4", float("nan")),
    ]
    assert select_scores(rows) == {("synth", "slice", "cradl"): "gmm2"}


def test_mean_and_sample_deviation_in_percent():
    assert mean_and_deviation([0.1, 0.2, 0.3]) == "20.0 (10.0)"
    assert mean_and_deviation([0.1234]) == "12.3"
    assert mean_and_deviation([0.1, float("nan")]) == "10.0"
    assert mean_and_deviation([float("nan")]) == mean_and_deviation([]) == "–"


def test_table_of_results():
    table = result_tables(ROWS)[0]
    assert "synth" in table.caption and "20.50 % on test" in table.caption
    assert table.rows == [
        ("cradl", "gmm1", "30.0", "90.0", "–", "–", "–"),
        ("cradl", "gmm2", "40.0", "10.0", "–", "–", "–"),
        ("baseline", "area", "50.0", "31.0", "–", "–", "–"),
    ]
    assert table.bold == {1}


def test_markdown_of_results():
    lines = tables(ROWS).splitlines()
    assert lines[2].startswith("| Method | Score | Val. AUPRC | AUPRC | AUROC |")
    assert lines[3].startswith("| --- | --- | ---: | ---: |")
    assert "| **cradl** | **gmm2** | **40.0** | **10.0** |" in lines[5]


def test_markdown_escapes_cells():
    line = markdown_table(Table("c", ("h",), [(HOSTILE,)])).splitlines()[4]
    assert "<" not in line and "sub\\|01" in line


def small_figure():
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    return figure


def test_page_escapes_whatever_comes_from_data():
    table = Table(HOSTILE, (HOSTILE,), [(HOSTILE,)])
    parts = [HOSTILE, {HOSTILE: HOSTILE}, table, Verbatim(HOSTILE)]
    page = Page(html_page(HOSTILE, [Section(HOSTILE, [*parts, Picture(small_figure(), HOSTILE)])]))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(HOSTILE) == 12
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
    table = result_tables(ROWS)[0]
    cells = [cell for row in (table.header, *table.rows) for cell in row]
    assert Page(html_page("t", [Section("s", [table])])).cells == cells
    lines = markdown_table(table).splitlines()[2:]
    written = [line.strip("| ").split(" | ") for line in lines if "---" not in line]
    assert [cell.strip("*") for row in written for cell in row] == cells


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    labels = rng.random(400) < 0.2
    return np.round(rng.normal(size=400) + labels, 1), labels


def test_drawn_curves_enclose_the_areas_of_scikit_learn(scored):
    scores, labels = scored
    roc, (recall, precision) = figures._curves(operating_points(in_memory(scores, labels)))
    assert auc(*roc) == pytest.approx(roc_auc_score(labels, scores))
    steps = np.sum(np.diff(recall) * precision[1:])
    assert steps == pytest.approx(average_precision_score(labels, scores))


def test_roc_and_pr_names_every_score_and_its_areas(scored):
    scores, labels = scored
    figure = figures.roc_and_pr({"gmm1": (scores, labels), "none": (scores, np.zeros(400, bool))})
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    expected = f"AUROC {roc_auc_score(labels, scores):.3f}"
    assert len(texts) == 2 and "gmm1" in texts[0] and expected in texts[0]


def test_histogram_counts_every_slice_of_each_class_once(scored):
    scores, labels = scored
    scores = np.concatenate([scores, [1e6]])
    figure = figures.score_histogram(scores, np.append(labels, True), "t")
    shares = [patch.get_data().values.sum() for patch in figure.axes[0].patches]
    np.testing.assert_allclose(shares, 1)
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == [f"normal ({(~labels).sum()} slices)", f"anomalous ({labels.sum() + 1} slices)"]


def test_loss_curves_mark_the_smallest_validation_loss():
    history = [
        {"step": 1, "train/loss": 3.0},
        {"step": 2, "train/loss": 2.0, "val/loss": 2.5},
        {"step": 3, "val/loss": 2.75},
    ]
    lines = figures.loss_curves(history).axes[0].lines
    points = [np.transpose(line.get_data()).tolist() for line in lines]
    assert points == [[[1, 3], [2, 2]], [[2, 2.5], [3, 2.75]], [[2, 2.5]]]


def test_examples_share_one_scale_per_kind_of_heatmap():
    rng = np.random.default_rng(0)
    maps = rng.gamma(1, 1, (3, 8, 8)) * np.array([1, 10, 100])[:, None, None]
    masks = np.zeros((3, 8, 8), bool)
    masks[0, 2:5, 2:5] = True
    figure = figures.examples(maps, masks, maps, maps / 2, np.array([1.0, 2, 3]))
    assert len({axes.images[0].get_clim() for axes in figure.axes[2:12:4]}) == 1
    assert len({axes.images[1].get_clim() for axes in figure.axes[3:12:4]}) == 1
    assert [axes.get_ylabel() for axes in figure.axes[0:12:4]] == [
        "anomalous\nscore 1",
        "normal\nscore 2",
        "normal\nscore 3",
    ]


@pytest.mark.parametrize("eigenvalues", [[4.0, 1.0, 0.0], [0.0, 0.0]])
def test_figures_of_a_short_run_can_be_written(tmp_path, eigenvalues):
    drawn = [
        figures.loss_curves([{"step": 1, "train/loss": 1.0}]),
        figures.score_histogram(np.zeros(3), np.zeros(3, bool), "constant"),
        figures.spectrum(np.array(eigenvalues), 1.6 if sum(eigenvalues) else float("nan")),
        figures.roc_and_pr({}),
    ]
    page = report.html_page("t", [Section("s", [Picture(figure, "c") for figure in drawn])])
    assert page.count("data:image/png") == len(drawn)
