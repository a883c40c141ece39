"""The model card of a run: what it learned from, what it is for, how well it does, how to load it.

Markdown, above it the block of YAML that model hubs read (Mitchell et al., "Model Cards for Model
Reporting", arXiv:1810.03993; fields as in huggingface/hub-docs, modelcard.md).
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from statistics import median
from typing import Any, NamedTuple

import jinja2

from cradl_jax.data.scans.preparation import Preparation, in_words
from cradl_jax.evaluation import masks
from cradl_jax.evaluation.results import LEVELS, METRICS, Result
from cradl_jax.names import BASELINE, FAE, RESTORERS
from cradl_jax.reporting import paper
from cradl_jax.reporting.further_tables import AT_RATE
from cradl_jax.reporting.page import Table, markdown_table, markdown_text
from cradl_jax.reporting.summary import DASH, Estimate, percent, remarks
from cradl_jax.runs.contents import RunContents
from cradl_jax.storage.manifest import flat

UNKNOWN = "unknown"
"""Identifier of a licence that nobody stated, as the hub has it."""
NOT_STATED = "not stated"
METRIC_NAMES = {"auprc": "average_precision", "auroc": "roc_auc"}
TASKS = {"slice": "image-classification", "voxel": "image-segmentation"}
CHOSEN = {"slice": "score", "voxel": "heatmap"}  # of a run, by the level that it judges
RATE = "0.05"  # at which figures are given: the default of predict
TAGS = ("anomaly-detection", "medical-imaging", "brain-mri", "unsupervised", "jax", "nifti")


class Markdown(str):
    """Text that is Markdown already, not to be escaped."""


class DataSplit(NamedTuple):
    """What is known of the scans of one split of a data set.

    Attributes:
        dataset: its name in the study.
        split: "train", "val" or "test".
        scans: how many.
        subjects: how many.
        slices: how many.
        spacings_mm: of the voxels of each scan, along R, A and S.
        sites: of the scans that state one.
        ages: in years, of the subjects that state one.
        sexes: of the subjects that state one, as they are written.
    """

    dataset: str
    split: str
    scans: int
    subjects: int
    slices: int
    spacings_mm: Sequence[Sequence[float]]
    sites: Sequence[str]
    ages: Sequence[float]
    sexes: Sequence[str]


class Source(NamedTuple):
    """What a data set says of itself; None where it does not."""

    dataset: str
    name: str | None
    license: str | None
    doi: str | None
    preparations: Sequence[Preparation | None]


class Facts(NamedTuple):
    """What a card says beyond the run itself.

    Attributes:
        splits: of the data sets of the study.
        sources: of these data sets.
        missing: sentences on data sets that nothing is known of, and why.
        rows: results of the run's evaluation.
        estimates: AUPRC and AUROC of the run's chosen scores on test, with their intervals.
        unmeasured: a sentence that says so where there are no estimates.
        license: of the weights, an identifier of the hub's.
    """

    splits: Sequence[DataSplit] = ()
    sources: Sequence[Source] = ()
    missing: Sequence[str] = ()
    rows: Sequence[Result] = ()
    estimates: Sequence[Estimate] = ()
    unmeasured: str = "This run was not evaluated."
    license: str = UNKNOWN


def _what(run: RunContents) -> str:
    """Say what a run consists of."""
    method = run.manifest["settings"]["method"]
    name = paper.method_name(method)
    if method == BASELINE:
        return f"Gaussians of pixels at each position and height, without a network ({name})"
    if method == FAE:
        return (
            f"an autoencoder ({name}) of the features of CRADL's encoder, which scores by those "
            "that it fails to reconstruct"
        )
    if method in RESTORERS:
        return f"a U-Net ({name}), which restores corrupted slices, and scores by what it restores"
    return f"an encoder ({name}), and densities of its features"


def model_card(run: RunContents, facts: Facts) -> str:
    """Return the card of a run; all text from data is escaped, in YAML and in Markdown."""
    settings, healthy = run.manifest["settings"], run.thresholds.slices[run.chosen["score"]]
    method = paper.method_name(settings["method"])
    title = f"{method} for {settings['contrast']} brain MRI"
    described = [_split_table(facts.splits), _source_table(facts.sources)]
    body = _template().render(
        title=title,
        what=_what(run),
        contrast=settings["contrast"],
        version=run.manifest["versions"].get("cradl_jax", NOT_STATED),
        preparation=in_words(run.thresholds.preparation),
        n_training=run.thresholds.training.n,
        n_validation=len(healthy.scans["max"]),
        n_slices=healthy.n_slices,
        size=settings["size"],
        field=f"{run.thresholds.slicing['field_mm']:g}",
        detrend=run.thresholds.slicing["detrend"],
        data=[_markdown(table) for table in described if table.rows],
        missing=facts.missing,
        score=paper.score_name(run.chosen["score"]),
        heatmap=paper.score_name(run.chosen["heatmap"]),
        how=_how_chosen(facts.rows),
        measured=_markdown(_figures(run, facts)) if facts.estimates else None,
        unmeasured=facts.unmeasured,
        thresholds=_markdown(_threshold_table(run)),
        settings=_markdown(_settings_table(run)),
        license=NOT_STATED if facts.license == UNKNOWN else facts.license,
    )
    return f"---\n{front_matter(_metadata(run, facts, title))}---\n\n{body}"


def front_matter(fields: Mapping[str, Any]) -> str:
    """Return plain values as YAML, one line a field: JSON is YAML, but for what is not printable.

    That is escaped as YAML has it, in eight digits, which no pair of surrogates needs.
    """
    lines = (f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items())
    return "".join(
        c if c.isprintable() or c == "\n" else f"\\U{ord(c):08x}" for c in "".join(lines)
    )


def _metadata(run: RunContents, facts: Facts, title: str) -> dict[str, Any]:
    """Return the fields that model hubs read; data sets of a study have no identifier there."""
    settings = run.manifest["settings"]
    fields = {
        "license": facts.license,
        "library_name": "cradl_jax",
        "pipeline_tag": TASKS["voxel"],
        "tags": [*TAGS, settings["method"], settings["contrast"]],
        "metrics": list(METRIC_NAMES.values()),
    }
    results = [
        {
            "task": {"type": TASKS[e.level], "name": f"{e.level}-wise {LEVELS[e.level]}"},
            "dataset": {"type": e.dataset, "name": e.dataset, "split": "test"},
            "metrics": [
                {
                    "type": METRIC_NAMES[e.metric],
                    "name": f"{METRICS[e.metric]} in %, 95 % interval {_interval(e)}",
                    "value": round(100 * e.mean, 1),
                }
            ],
        }
        for e in facts.estimates
        if not math.isnan(e.mean)
    ]
    if results:
        fields["model-index"] = [{"name": f"{title}, seed {settings['seed']}", "results": results}]
    return fields


@cache
def _template() -> jinja2.Template:
    """Return the card's template; every value in it is escaped but for `Markdown`."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("cradl_jax.reporting", ""),
        autoescape=False,  # which is for HTML
        finalize=lambda v: v if isinstance(v, Markdown) else markdown_text(str(v)),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    ).get_template("card.md.j2")


def _markdown(table: Table) -> Markdown:
    return Markdown(markdown_table(table))


def _how_chosen(rows: Sequence[Result]) -> str:
    if any(r.split == "val" and r.metric == "auprc" and not math.isnan(r.value) for r in rows):
        return "chosen by the AUPRC on validation scans"
    return "the defaults, since no anomalous validation scan was there to choose them on"


def _split_table(splits: Iterable[DataSplit]) -> Table:
    header = ("Data set", "Split", "Scans", "People", "Slices", "Voxels, mm", "Sites", "Age", "Sex")
    rows = [
        (
            *(one.dataset, one.split, f"{one.scans:,}", f"{one.subjects:,}", f"{one.slices:,}"),
            *(_spacings(one.spacings_mm), _counts(one.sites, one.scans)),
            *(_ages(one.ages, one.subjects), _counts(one.sexes, one.subjects)),
        )
        for one in splits
    ]
    caption = f"Scans of the study; ages in years. {DASH}: not stated beside the scans."
    return Table(caption, header, rows)


def _source_table(sources: Iterable[Source]) -> Table:
    rows = [
        (
            *(one.dataset, one.name or DASH, one.license or DASH, one.doi or DASH),
            " or ".join(map(in_words, one.preparations)),
        )
        for one in sources
    ]
    header = ("Data set", "Calls itself", "Licence", "DOI", "Prepared")
    return Table("What the data sets say of themselves.", header, rows)


def _spacings(spacings_mm: Sequence[Sequence[float]]) -> str:
    """Return '1 x 1 x 2 to 3': the range of the voxels' sides along R, A and S."""
    sides = []
    for side in zip(*spacings_mm, strict=True):
        low, high = (f"{end(side):.3g}" for end in (min, max))
        sides.append(low if low == high else f"{low} to {high}")
    return " x ".join(sides)


def _counts(found: Sequence[str], total: int) -> str:
    """Return 'Guys 2, HH 1, not stated 1', the most frequent first."""
    named = [f"{what} {count}" for what, count in Counter(found).most_common()]
    rest = [f"{NOT_STATED} {total - len(found)}"] if len(found) < total else []
    return ", ".join([*named, *rest]) if named else DASH


def _ages(ages: Sequence[float], total: int) -> str:
    """Return 'median 52, 20 to 86, not stated 3'."""
    if not ages:
        return DASH
    rest = f", {NOT_STATED} {total - len(ages)}" if len(ages) < total else ""
    return f"median {median(ages):.0f}, {min(ages):.0f} to {max(ages):.0f}{rest}"


def _figures(run: RunContents, facts: Facts) -> Table:
    """Return what was measured on test of the chosen slice score and heatmap, in %."""
    of_chosen = {
        (row.dataset, row.level, row.metric): row.value
        for row in facts.rows
        if row.split == "test" and row.score == run.chosen.get(CHOSEN.get(row.level, ""))
    }
    estimates = {(e.dataset, e.level, e.metric): e for e in facts.estimates}
    cells = []
    judged = dict.fromkeys(key[:2] for key in estimates)
    for dataset, level in sorted(judged, key=lambda pair: list(LEVELS).index(pair[1])):
        with_interval = (estimates[dataset, level, metric] for metric in METRIC_NAMES)
        plain = (f"{metric}@{RATE}" for metric in AT_RATE)
        cells.append(
            (
                *(dataset, f"{level}s"),
                percent(of_chosen.get((dataset, level, "prevalence"), math.nan)),
                *(f"{percent(e.mean)} ({_interval(e)})" for e in with_interval),
                *(percent(of_chosen.get((dataset, level, one), math.nan)) for one in plain),
            )
        )
    at = [f"{name} at {100 * float(RATE):g} %" for name in AT_RATE.values()]
    header = ("Data set", "Judged", "Anomalous", *(METRICS[one] for one in METRIC_NAMES), *at)
    caption = (
        "In %. Anomalous: the share of slices or voxels that are, which is the AUPRC of chance. "
        f"The last columns are at the threshold that {100 * float(RATE):g} % of the slices or "
        "voxels of healthy validation scans exceed; false positives are the share of normal ones "
        "above it."
    )
    notes = [note for level in LEVELS for note in remarks(facts.rows, level, "test")]
    return Table(caption, header, cells, notes=tuple(notes))


def _interval(estimate: Estimate) -> str:
    """Return '48.1 to 57.3', in %; – if it is not defined."""
    ends = estimate.low, estimate.high
    return DASH if math.isnan(sum(ends)) else f"{percent(ends[0])} to {percent(ends[1])}"


def _threshold_table(run: RunContents) -> Table:
    """Return the thresholds of the chosen slice score and heatmap."""
    score, heatmap = run.chosen["score"], run.chosen["heatmap"]
    of_score = f"Slice score, {paper.score_name(score)}"
    of_heatmap = f"Heatmap, {paper.score_name(heatmap)}"
    rows = [
        (of_score, f"{value:.6g}", f"{rate} of the slices of healthy validation scans lies above")
        for rate, value in run.thresholds.slices[score].thresholds.items()
    ]
    rows += [
        (of_heatmap, f"{mask.threshold:.6g}", masks.MEANING[name])
        for name, mask in run.thresholds.heatmaps[heatmap].masks.items()
    ]
    caption = (
        "No annotated anomaly took part. The file holds those of every other score and heatmap too."
    )
    return Table(caption, ("Of", "Threshold", "Meaning"), rows)


def _settings_table(run: RunContents) -> Table:
    """Return settings, versions, commit and fingerprints."""
    manifest = run.manifest
    values = {
        **flat(manifest["settings"]),
        **flat(manifest["versions"]),
        "commit": manifest.get("git_commit") or NOT_STATED,
        "fingerprint of the training data": manifest["made_from"],
        "fingerprint of the model": run.fingerprint,
    }
    rows = [(name, str(value)) for name, value in values.items()]
    return Table("What made the model.", ("Setting", "Value"), rows)
