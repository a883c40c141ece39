"""A model card, read by parsers of YAML and of Markdown that are not ours."""

import math
import re
from itertools import pairwise

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import cradl_jax
from cradl_jax.data.scans.preparation import Preparation
from cradl_jax.evaluation.results import Result
from cradl_jax.reporting import card
from cradl_jax.reporting.card import DataSplit, Facts, Source
from cradl_jax.reporting.page import Table, markdown_table, markdown_text
from cradl_jax.reporting.summary import Estimate

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HOSTILE = (
    "a: [b](http://evil.example) <script>x</script> `c` **d** _e_ | # f ~~g~~ $$h$$ \\ &lt; ---"
)
PLAIN = st.text(st.characters(exclude_categories=["Cs"]))


def rendered(text):
    """The text that a reader sees, and the names of the tokens that it is set in."""
    tokens = [t for block in MARKDOWN.parse(text) for t in (block.children or [block])]
    return "".join(t.content for t in tokens), {t.type for t in tokens}


def tables(text):
    """The cells of each table of a page, a list a row."""
    found, cells = [], None
    for token in MARKDOWN.parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("td_open", "th_open"):
            cells = found[-1][-1]
        elif token.type == "inline" and cells is not None:
            cells.append("".join(child.content for child in token.children))
        elif token.type == "table_close":
            cells = None
    return found


def split(text):
    """The fields of a card's block of YAML, and the Markdown below it."""
    _, block, body = re.split(r"^---\n", text, maxsplit=2, flags=re.M)
    return yaml.safe_load(block), body


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | PLAIN
    | st.floats(-100, 100).map(lambda x: round(x, 1)),
    lambda inner: st.lists(inner) | st.dictionaries(PLAIN, inner),
)


@given(st.dictionaries(st.sampled_from(["license", "tags", "model-index"]), VALUES))
@example(
    {
        "tags": [
            "é \U0001f9e0 \x7f \x85 \u2028 \ufeff \ufffe ' \" \\ \t\n---\n",
            "no",
            "1e3",
            "~",
            "#",
        ]
    }
)
def test_front_matter_is_yaml_of_the_same_values(fields):
    text = card.front_matter(fields)
    assert (yaml.safe_load(text) or {}) == fields
    assert len(text.splitlines()) == len(fields)


@given(PLAIN)
@example(HOSTILE)
@example("www.evil.example ![i](u) <a@b.c> ~x~ \\| \\")
@example("https://evil.example/*")
def test_text_is_not_taken_for_markup(text):
    once = " ".join(text.split()).replace("\x00", "\ufffd")  # as CommonMark has it
    seen, kinds = rendered(f"({markdown_text(text)})")
    assert seen == f"({once})"
    assert kinds <= {"paragraph_open", "paragraph_close", "text", "text_special"}
    (rows,) = tables(markdown_table(Table("c", ("h", "i"), [(text, "end")])))
    assert rows[1] == [once, "end"]
    for link in ("://", "www."):
        assert link not in markdown_text(text).lower()


@pytest.fixture(scope="module")
def run(folder):
    return cradl_jax.load_run(folder).contents


def result(level, score, metric, value, split="test"):
    return Result(0, "cradl", score, HOSTILE, split, level, metric, value)


def facts(run, low=0.4):
    score, heatmap = run.chosen["score"], run.chosen["heatmap"]
    rows = [result("slice", score, "auprc", 0.6, "val")]
    estimates = []
    for level, name in (("slice", score), ("voxel", heatmap)):
        for metric, value in (("auprc", 0.5), ("auroc", 0.75)):
            rows.append(result(level, name, metric, value))
            which = HOSTILE, level, "beyond", "cradl", name, metric
            estimates.append(Estimate(*which, value, low, 0.9))
        rows += [result(level, name, f"{m}@0.05", 0.125) for m in ("dice", "sensitivity", "fpr")]
        rows.append(result(level, name, "prevalence", 0.01))
    spacings = [(1, 1, 2), (1, 1, 3.0)]
    some = DataSplit(HOSTILE, "test", 2, 2, 99, spacings, ["Guys"], [20, 71.2], ["F", "F"])
    none = DataSplit("healthy", "train", 1, 1, 1234, [(1.0, 1.0, 1.0)], [], [], [])
    made = Preparation(extract=HOSTILE, align="rigid", spacing_mm=1)
    source = Source(HOSTILE, HOSTILE, "CC0", None, [None, made])
    return Facts([some, none], [source], [f"missing {HOSTILE}"], rows, estimates)


def test_a_card_with_hostile_names_says_them_and_nothing_else(run):
    seen = {}
    for name, given_facts in (("hostile", facts(run)), ("none", Facts())):
        fields, body = split(card.model_card(run, given_facts))
        blocks = MARKDOWN.parse(body)
        tokens = [token for block in blocks for token in (block.children or [block])]
        assert not [t for t in tokens if "html" in t.type or t.type == "s_open"]
        links = [token.attrs["href"] for token in tokens if token.type == "link_open"]
        headings = [b.content for a, b in pairwise(blocks) if a.type == "heading_open"]
        seen[name] = links + headings
        assert ("model-index" in fields) == (name == "hostile")
    assert seen["hostile"] == seen["none"] and "Evaluation" in seen["none"]
    fields, body = split(card.model_card(run, facts(run)))
    assert fields["model-index"][0]["results"][0]["dataset"]["name"] == HOSTILE
    assert f"missing {HOSTILE}" in rendered(body)[0]


def test_metadata_is_what_hubs_read(run):
    fields, _ = split(card.model_card(run, facts(run)))
    assert fields["license"] == "unknown" and fields["library_name"] == "cradl_jax"
    assert fields["pipeline_tag"] == "image-segmentation"
    assert {"T2w", "cradl", "anomaly-detection"} <= set(fields["tags"])
    (index,) = fields["model-index"]
    assert [len(one["metrics"]) for one in index["results"]] == [1] * 4
    for one in index["results"]:
        assert {"type", "name"} <= one["task"].keys() and one["dataset"]["split"] == "test"
    values = [one["metrics"][0] for one in index["results"]]
    assert [m["value"] for m in values] == [50, 75, 50, 75]
    assert values[0]["name"] == "AUPRC in %, 95 % interval 40.0 to 90.0"
    assert {m["type"] for m in values} == set(fields["metrics"])


def test_tables_say_data_figures_and_thresholds(run):
    _, body = split(card.model_card(run, facts(run)._replace(license="cc0-1.0")))
    data, sources, figures, thresholds, settings = tables(body)
    assert data[1][1:] == [
        *("test", "2", "2", "99", "1 x 1 x 2 to 3", "Guys 1, not stated 1"),
        *("median 46, 20 to 71", "F 2"),
    ]
    assert data[2] == ["healthy", "train", "1", "1", "1,234", "1 x 1 x 1", "–", "–", "–"]
    assert sources[1][2:4] == ["CC0", "–"]
    slices = [HOSTILE, "slices", "1.0", "50.0 (40.0 to 90.0)", "75.0 (40.0 to 90.0)", *["12.5"] * 3]
    assert figures[1] == slices and figures[2][1] == "voxels"
    chosen = run.thresholds.slices[run.chosen["score"]].thresholds
    masks = run.thresholds.heatmaps[run.chosen["heatmap"]].masks
    expected = [*chosen.values(), *(mask.threshold for mask in masks.values())]
    assert [float(row[1]) for row in thresholds[1:]] == pytest.approx(expected, 1e-5)
    assert ["fingerprint of the model", run.fingerprint] in settings
    assert "chosen by the AUPRC on validation scans" in " ".join(body.split())
    assert "Weights: cc0-1.0" in body


def test_what_is_undefined_or_was_not_measured_is_said(run):
    fields, body = split(card.model_card(run, facts(run, low=math.nan)))
    assert (
        "50.0 (–)" in body
        and "interval –" in fields["model-index"][0]["results"][0]["metrics"][0]["name"]
    )
    fields, body = split(card.model_card(run, Facts()))
    assert "**This run was not evaluated.**" in body and len(tables(body)) == 2
    assert "the defaults, since no anomalous" in " ".join(body.split())
    assert f"{run.thresholds.training.n} healthy scans" in body
    assert "Weights: not stated" in body
