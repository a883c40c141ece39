"""Tables of what lies above the thresholds of healthy scans: cells worked by hand."""

from cradl_jax.evaluation.results import Choice, Result, of_encoders
from cradl_jax.reporting.further_tables import pretext_table, threshold_table
from cradl_jax.reporting.summary import Estimate

NAN = float("nan")
METRICS = (
    *("dice", "dice@0.01", "dice@0.05", "dice@0.1", "sensitivity@0.01", "sensitivity@0.05"),
    *("sensitivity@0.1", "fpr@0.01", "fpr@0.05", "fpr@0.1"),
)
VALUES = (0.6, 0.3, 0.5, 0.4, 0.2, 0.54, 0.7, 0.0, 0.12, NAN)


def study(dataset="synth", seed=0, factor=1.0, level="slice", share=0.2):
    """Of CRADL and a baseline two scores each, the first chosen; of a VAE one without thresholds.

    The score that is not chosen, and every score on validation, have other values.
    """

    def measured(method, score, val, test, metric="auprc"):
        return [
            Result(seed, method, score, dataset, split, level, metric, value)
            for split, value in (("val", val), ("test", test))
        ]

    rows = measured("vae", "kl", 0.5, 0.5)
    for method, scores in (("baseline", ("area", "position")), ("cradl", ("gmm8", "flow"))):
        for score, auprc, of_score in zip(scores, (0.9, 0.8), (factor, 0.1), strict=True):
            rows += measured(method, score, auprc, 1 - auprc)
            for metric, value in zip(METRICS, VALUES, strict=True):
                rows += measured(method, score, 0.99, of_score * value, metric)
    return rows + measured("vae", "kl", 0.2, share, "prevalence")


def test_cells_are_those_of_the_chosen_scores_on_test():
    table = threshold_table(study() + study(level="voxel", factor=0.5), "slice")
    assert table.header == (
        *("Data set", "Method", "Score", "Best Dice (oracle)"),
        *("Dice at 1 %", "Dice at 5 %", "Dice at 10 %"),
        *("Sensitivity at 1 %", "Sensitivity at 5 %", "Sensitivity at 10 %"),
        *("False positives at 1 %", "False positives at 5 %", "False positives at 10 %"),
    )
    values = ("60.0", "30.0", "50.0", "40.0", "20.0", "54.0", "70.0", "0.0", "12.0", "–")
    assert table.rows == [
        ("synth", "CRADL", "GMM 8", *values),
        ("synth", "VAE", "KL-Div.", *["–"] * 10),
        ("synth", "Baseline", "Brain area", *values),
    ]
    assert "Slice-wise detection on test, one seed" in table.caption and not table.notes
    assert "healthy scans alone" in table.caption and "an oracle" in table.caption


def test_cells_have_mean_and_deviation_over_seeds_and_every_data_set_its_rows():
    rows = study(factor=0.9) + study(seed=1) + study("other") + study("other", 1)
    table = threshold_table(rows, "slice")
    assert [row[:2] for row in table.rows] == [
        (dataset, method)
        for dataset in ("synth", "other")
        for method in ("CRADL", "VAE", "Baseline")
    ]
    assert table.rows[0][3:6] == ("57.0 (4.2)", "28.5 (2.1)", "47.5 (3.5)")
    assert "over 2 seeds" in table.caption


def test_notes_say_why_a_cell_is_empty():
    unchosen = [
        row._replace(value=NAN if row.metric == "auprc" else 0.0) if row.split == "val" else row
        for row in study("lesion")
    ]
    table = threshold_table([*study(), *unchosen], "slice")
    assert [row for row in table.rows if row[0] == "lesion"] == [
        ("lesion", method, *["–"] * 11) for method in ("CRADL", "VAE", "Baseline")
    ]
    assert table.notes == (
        "lesion: no score could be chosen for detection, since none of its validation slices is "
        "anomalous.",
    )
    assert threshold_table(study(share=0.0), "slice").notes == (
        "synth: no Dice is defined on test, since none of its test slices is anomalous.",
    )


def test_encoders_are_compared_by_the_density_that_each_chose_and_by_the_dense_one():
    papers = {
        Choice("synth", "slice", "radl", "vae"): "gmm2",
        Choice("synth", "slice", "full", "vae"): "kl",
    }
    assert of_encoders(papers) == {}, "a study of the paper's methods"
    assert of_encoders({**papers, Choice("synth", "slice", "radl", "mae"): "flow"}) == {
        Choice("synth", "slice", "radl", "vae"): "gmm2",
        Choice("synth", "slice", "dense", "vae"): "dense",
        Choice("synth", "slice", "radl", "mae"): "flow",
        Choice("synth", "slice", "dense", "mae"): "dense",
    }


def test_table_of_pretexts_has_a_row_a_method_and_marks_the_best():
    def estimate(dataset, level, comparison, method, mean):
        known = (mean - 0.1, mean + 0.1)
        return Estimate(dataset, level, comparison, method, "gmm1", "auprc", mean, *known)

    means = {("cradl", "radl"): 0.5, ("mae", "radl"): 0.4, ("cradl", "dense"): 0.6}
    found = [
        *(estimate("synth", "slice", which, method, m) for (method, which), m in means.items()),
        estimate("synth", "voxel", "dense", "mae", 0.7),
        estimate("lesion", "slice", "radl", "mae", NAN),
    ]
    table = pretext_table(found)
    contrast, hidden = ("CRADL", "contrast views"), ("MAE", "restore hidden blocks")
    assert table.rows == [
        ("synth", *contrast, "50.0 (40.0 to 60.0)", "–", "60.0 (50.0 to 70.0)", "–"),
        ("synth", *hidden, "40.0 (30.0 to 50.0)", "–", "–", "70.0 (60.0 to 80.0)"),
        ("lesion", *contrast, "–", "–", "–", "–"),
        ("lesion", *hidden, "– (–)", "–", "–", "–"),
    ]
    assert table.bold == {(0, 3), (0, 5), (1, 6)}
