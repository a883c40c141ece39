"""Tables in the paper's layout: cells worked by hand, and what is said where nothing is defined."""

import math

import pytest

from cradl_jax.errors import InputError
from cradl_jax.evaluation.results import Result, select_scores
from cradl_jax.reporting import paper, tables
from cradl_jax.reporting.further_tables import beyond_table, difference_table, interval_table
from cradl_jax.reporting.page import Section as Part
from cradl_jax.reporting.page import html_page, markdown_table
from cradl_jax.reporting.summary import (
    Comparison,
    Estimate,
    bars,
    fraction,
    measured,
    percent,
    prevalences,
)

NAN = float("nan")


def on_both_splits(
    method, score, val, test, dataset="synth", level="slice", seed=0, metric="auprc"
):
    splits = (("val", val), ("test", test))
    return [Result(seed, method, score, dataset, s, level, metric, v) for s, v in splits]


def study(dataset="synth", seed=0, shift=0.0):
    """Slice-wise results of all three methods and two baselines on one data set."""
    found = [
        *on_both_splits("vae", "kl", 0.30, 0.31 + shift, dataset, seed=seed),
        *on_both_splits("vae", "elbo", 0.40, 0.45 + shift, dataset, seed=seed),
        *on_both_splits("vae", "gmm1", 0.35, 0.33 + shift, dataset, seed=seed),
        *on_both_splits("cradl", "flow", 0.50, 0.60 + shift, dataset, seed=seed),
        *on_both_splits("cradl", "gmm8", 0.55, 0.50 + shift, dataset, seed=seed),
        *on_both_splits("cradl", "gmm2", 0.20, 0.99, dataset, seed=seed),
        *on_both_splits("baseline", "area", 0.25, 0.21, dataset, seed=seed),
        *on_both_splits("baseline", "position", 0.22, 0.97, dataset, seed=seed),
        *on_both_splits("cradl", "gmm8", 0.20, 0.25, dataset, seed=seed, metric="prevalence"),
    ]
    for method, score, value in (("vae", "elbo", 0.7), ("cradl", "gmm8", 0.8)):
        found += on_both_splits(
            method, score, value, value + shift, dataset, seed=seed, metric="auroc"
        )
    return found


SEEDS = study() + study(seed=1, shift=0.02)
WITHOUT_ANOMALIES = [
    row._replace(value=0.0 if row.metric == "prevalence" else NAN) if row.split == "val" else row
    for row in study("lesion")
]


def test_mean_and_sample_deviation():
    def spread(values):
        rows = [
            Result(seed, "vae", "kl", "synth", "test", "slice", "auprc", value)
            for seed, value in enumerate(values)
        ]
        return measured(rows, "slice", "test").get(("synth", "vae", "kl", "auprc"))

    assert spread([0.1, 0.2, 0.3]) == pytest.approx((0.2, 0.1))
    assert spread([0.1, NAN])[0] == 0.1 and math.isnan(spread([0.1, NAN])[1])
    assert spread([]) is None and spread([NAN]) is None


def test_numbers_as_the_paper_prints_them():
    assert percent(0.3246, 0.0076) == "32.5 (0.8)"
    assert fraction(0.3246, 0.0076) == "0.3246±0.0076"
    assert (percent(0.1234), fraction(0.1234)) == ("12.3", "0.1234")
    assert percent(NAN) == fraction(NAN) == "–"


def test_table_of_data_sets():
    sizes = {
        ("synth", "test", "scans"): 49,
        ("synth", "test", "slices"): 7105,
        ("other", "test", "scans"): 1,
    }
    rows = SEEDS + on_both_splits(
        "cradl", "gmm8", 0.0077, 0.00649, level="voxel", metric="prevalence"
    )
    table = tables.data_table(rows, sizes, {"synth": "HCP Synth."})
    assert table.header[:3] == ("Data set", "Scans, test", "Scans, val.")
    shares = ("0.649 %", "0.770 %")
    assert table.rows == [
        ("synth", "49", "–", "7,105", "–", "25.0 %", "20.0 %", *shares),
        ("paper", "49", "49", "7,105", "7,105", "20.5 %", "19.8 %", *shares),
    ]
    assert table.cited == {1}
    assert table.notes == (
        "In italics: Table 1 of the paper, Lüth et al. (2023): HCP Synth. for synth.",
    )


def test_table_of_methods_shows_the_chosen_score_and_the_baseline_chosen_alike():
    table = tables.comparison_table(SEEDS, "slice")
    assert table.header == ("Method", "synth AUPRC", "synth AUROC")
    assert table.rows == [
        ("CRADL", "51.0 (1.4)", "81.0 (1.4)"),
        ("VAE", "46.0 (1.4)", "71.0 (1.4)"),
        ("Baseline", "21.0 (0.0)", "–"),
    ]
    assert table.bold == {(0, 1), (0, 2)} and not table.cited and not table.notes
    assert "2 seeds" in table.caption
    assert "one seed" in tables.comparison_table(study(), "slice").caption


def test_paper_stands_under_our_figures_where_a_data_set_is_its():
    table = tables.comparison_table(SEEDS + study("mine"), "slice", {"synth": "ISLES"})
    assert [row[0] for row in table.rows] == ["CRADL", "paper", "VAE", "paper", "Baseline"]
    assert table.rows[1] == ("paper", "54.9 (0.5)", "69.3 (0.0)", "–", "–")
    assert table.cited == {1, 3}
    assert all(row not in table.cited for row, _ in table.bold)


def test_table_of_chosen_scores():
    table = tables.selection_table(SEEDS, {"synth": "BraTS"})
    assert table.header[2:4] == ("Detection, own scores (5.1)", "Detection, densities (5.3)")
    assert table.rows == [
        ("synth", "CRADL", "GMM 8", "GMM 8", "–", "–"),
        ("", "paper", "GMM 1", "GMM 1", "GMM 2", "GMM 2"),
        ("synth", "VAE", "ELBO", "GMM 1", "–", "–"),
        ("", "paper", "KL-Div.", "GMM 8", "Rec.", "GMM 4"),
    ]


def test_table_of_every_score_in_the_papers_order():
    table = tables.score_table(SEEDS, "slice", "test")
    assert table.header == ("Pre-text", "Gen. model", "Score", "synth AUPRC", "synth AUROC")
    assert (
        table.rows
        == [
            ("VAE", "GMM 1", "NLL", "0.3400±0.0141", "–"),
            ("VAE", "VAE", "ELBO", "0.4600±0.0141", "0.7100±0.0141"),
            ("VAE", "VAE", "KL-Div.", "0.3200±0.0141", "–"),
            ("CRADL", "GMM 2", "NLL", "0.9900±0.0000", "–"),
            ("CRADL", "GMM 8", "NLL", "0.5100±0.0141", "0.8100±0.0141"),
            ("CRADL", "Norm. Flow", "NLL", "0.6100±0.0141", "–"),
            ("Baseline", "–", "Brain area", "0.2100±0.0000", "–"),
            ("Baseline", "–", "Position", "0.9700±0.0000", "–"),
        ]
        or table.rows[-1][2] == "Brain area"
    )
    assert table.bold == {(0, 3), (1, 3), (1, 4), (4, 3), (4, 4), (7, 3)}


@pytest.mark.parametrize(("level", "split"), paper.BY_SCORE)
def test_the_papers_own_results_give_its_tables_back(level, split):
    """Rows made of the paper's means: our figures equal those quoted beneath them."""
    rows = [
        Result(0, r.method, r.score, r.dataset, r.split, r.level, r.metric, r.mean)
        for r in paper.rows()
        if r.score
    ]
    names = {name: name for name in paper.DATA_SETS}
    table = tables.score_table(rows, level, split, names)
    ours, theirs = table.rows[::2], table.rows[1::2]
    assert table.cited == set(range(1, len(table.rows), 2))
    quoted = [tuple(cell.split("±")[0] for cell in row[3:]) for row in theirs]
    assert quoted == [row[3:] for row in ours]
    assert 6 * len(ours) == sum(
        (r.level, r.split) == (level, split) and r.score > "" for r in paper.rows()
    )


def test_table_of_further_metrics_has_best_dice_and_fpr95_in_percent():
    rows = SEEDS + [
        row
        for m, v in (("dice", 0.5), ("fpr95", 0.25))
        for row in on_both_splits("vae", "kl", v, v, metric=m)
    ]
    table = tables.further_table(rows, "slice")
    assert table.header[3:] == ("synth best Dice (oracle)", "synth FPR95 ↓")
    assert ("VAE", "VAE", "KL-Div.", "50.0", "25.0") in table.rows


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (WITHOUT_ANOMALIES, "none of its validation slices is anomalous"),
        (
            [
                r._replace(value=1.0) if r.split == "val" and r.metric == "prevalence" else r
                for r in WITHOUT_ANOMALIES
            ],
            "all of its validation slices are anomalous",
        ),
        ([r for r in WITHOUT_ANOMALIES if r.split == "test"], "there are no validation results"),
        (
            [r for r in WITHOUT_ANOMALIES if r.split == "test" or r.metric == "auprc"],
            "no validation AUPRC is defined",
        ),
    ],
)
def test_tables_say_why_no_score_could_be_chosen(values, reason):
    rows = study() + values
    note = f"lesion: no score could be chosen for detection, since {reason}."
    methods = tables.comparison_table(rows, "slice")
    assert [row[3] for row in methods.rows] == ["–"] * 3
    test = tables.score_table(rows, "slice", "test")
    assert note in methods.notes and note in tables.selection_table(rows).notes
    assert note in test.notes and not any(column > 4 for _, column in test.bold)
    assert ("VAE", "VAE", "ELBO", "0.4500", "0.7000", "0.4500", "0.7000") in test.rows
    assert not any(choice.dataset == "lesion" for choice in select_scores(rows))


def test_tables_say_where_metrics_are_not_defined():
    rows = study() + WITHOUT_ANOMALIES
    reason = "lesion: no metric is defined on validation, since none of its validation slices is"
    notes = tables.score_table(rows, "slice", "val").notes
    assert any(note.startswith(reason) for note in notes)
    assert not any("synth" in note for note in notes)


@pytest.mark.parametrize("rows", [[], WITHOUT_ANOMALIES, study(), [r for r in SEEDS if r.seed]])
def test_all_tables_can_be_written_whatever_the_rows_hold(rows):
    found = tables.result_tables(rows)
    page = html_page("t", [Part("s", found)])
    assert page.count("<table>") == len(found)
    assert "".join(map(markdown_table, found))


def test_all_tables_of_a_study_in_the_papers_order():
    voxels = [
        row._replace(
            level="voxel", score={"kl": "kl_grad", "elbo": "combi"}.get(row.score, row.score)
        )
        for row in SEEDS
    ]
    estimate = Estimate("synth", "slice", "full", "vae", "kl", "auprc", 0.5, 0.4, 0.6)
    difference = Comparison("synth", "slice", "full", "vae", "cradl", 0.1, 0.0, 0.2, 0.05)
    found = tables.result_tables(SEEDS + voxels, {}, {}, [estimate], [difference])
    begins = [
        *("Anomalous data", "Slice-wise detection", "Voxel-wise localization", "The scores"),
        *("Beyond the paper: slice-wise", "Beyond the paper: voxel-wise"),
        *("Slice-wise detection on test", "Voxel-wise localization on test"),
        *("Patient-level", "Paired difference", "Slice-wise detection on test", "Slice-wise"),
        *("Voxel-wise localization on test", "Voxel-wise", "Slice-wise", "Voxel-wise"),
    ]
    assert len(found) == len(begins)
    assert all(t.caption.startswith(begin) for t, begin in zip(found, begins, strict=True))
    assert all("healthy validation scans" in table.caption for table in found[6:8])


def test_beyond_the_paper_every_score_is_chosen_from_and_the_best_of_a_data_set_is_bold():
    values = {("cradl", "gmm1"): 0.5, ("cradl", "dense"): 0.7, ("vae", "kl"): 0.8}
    rows = [
        Result(0, method, score, "synth", split, "slice", "auprc", value)
        for (method, score), value in values.items()
        for split in ("val", "test")
    ]
    table = beyond_table(rows, "slice", ["auprc"])
    assert table.rows == [
        ("synth", "CRADL", "Dense", "70.0"),
        ("synth", "VAE", "KL-Div.", "80.0"),
    ]
    assert table.bold == {(1, 3)}


def test_an_unknown_name_of_a_data_set_is_refused():
    with pytest.raises(InputError, match="no data set 'HCP'"):
        tables.result_tables(SEEDS, names={"synth": "HCP"})


def test_table_of_intervals():
    rows = [
        Estimate("synth", "voxel", "full", "cevae", "kl_grad", "auroc", 0.9, 0.85, 0.931),
        Estimate("synth", "slice", "radl", "cradl", "gmm4", "auprc", NAN, NAN, NAN),
    ]
    names = ("localization", "own scores", "ceVAE", "KL-Div.-grad", "AUROC")
    assert interval_table(rows).rows == [
        ("synth", *names, "90.0", "85.0 to 93.1"),
        ("synth", "detection", "densities", "CRADL", "GMM 4", "AUPRC", "–", "–"),
    ]


def test_table_of_differences():
    rows = [
        Comparison("synth", "slice", "full", "cradl", "vae", 0.031, -0.012, 0.07, 0.2),
        Comparison("synth", "voxel", "radl", "cradl", "vae", 0.2, 0.1, 0.3, 0.0002),
        Comparison("synth", "voxel", "radl", "cradl", "vae", NAN, NAN, NAN, NAN, "auroc"),
    ]
    table = difference_table(rows)
    assert [row[3:] for row in table.rows] == [
        ("AUPRC", "CRADL", "VAE", "3.1", "-1.2 to 7.0", "0.200"),
        ("AUPRC", "CRADL", "VAE", "20.0", "10.0 to 30.0", "<0.001"),
        ("AUROC", "CRADL", "VAE", "–", "–", "–"),
    ]


def test_bars_are_the_chosen_test_scores_with_the_deviation_over_seeds():
    found = {(bar.method, bar.kind): bar for bar in bars(SEEDS, names={"synth": "HCP Synth."})}
    heights = {key: round(bar.value, 6) for key, bar in found.items()}
    assert heights == {
        ("cradl", "density"): 0.51,
        ("vae", "density"): 0.34,
        ("vae", "kl"): 0.32,
        ("vae", "best"): 0.46,
    }
    bar = found["cradl", "density"]
    assert (bar.high - bar.value) == pytest.approx(0.02 / 2**0.5)
    assert (bar.value - bar.low) == pytest.approx(0.02 / 2**0.5)
    assert bar.cited == 0.7777 and found["vae", "density"].cited == 0.5164
    assert math.isnan(found["vae", "kl"].cited)  # a lost row
    assert all(math.isnan(bar.cited) for bar in bars(SEEDS))


def test_bars_take_intervals_instead_if_there_are_any():
    estimates = [
        Estimate("synth", "slice", "full", "cradl", "gmm8", "auprc", 0.5, 0.4, 0.7),
        Estimate("synth", "slice", "full", "vae", "elbo", "auroc", 0.5, 0.1, 0.2),
    ]
    found = {(bar.method, bar.kind): bar for bar in bars(SEEDS, estimates)}
    assert found["cradl", "density"][5:7] == (0.4, 0.7)
    assert math.isnan(found["vae", "best"].low)


def test_bars_leave_out_what_could_not_be_chosen_and_prevalences_keep_it():
    rows = study() + WITHOUT_ANOMALIES
    assert {(b.dataset, b.kind) for b in bars(rows) if b.dataset == "lesion"} == {("lesion", "kl")}
    assert prevalences(rows) == {("slice", "synth"): 0.25, ("slice", "lesion"): 0.25}
