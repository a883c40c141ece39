"""Tables beyond the paper: cells worked by hand."""

from cradl_jax.reporting import protocol_tables
from cradl_jax.reporting.summary import Estimate

NAN = float("nan")


def estimate(level, metric, mean, low=NAN, high=NAN, method="cradl"):
    return Estimate("synth", level, "beyond", method, "gmm1", metric, mean, low, high)


def test_cells_hold_estimates_with_their_intervals():
    found = [
        estimate("scan", "auroc_max", 0.75, 0.6, 0.9),
        estimate("scan", "prevalence", 0.4),
        estimate("scan", "dice_q1", 0.1),
        estimate("scan", "dice_median", 0.25, 0.2, 0.3),
        estimate("scan", "dice_q3", 0.5),
        estimate("voxel", "auprc", 0.3, 0.2, 0.4),
        estimate("voxel", "auprc_brain", 0.35, 0.25, 0.45),
        estimate("voxel", "fpr@0.05_brain", 0.2),
    ]
    scans, dice, brain = protocol_tables.protocol_tables(found)
    assert scans.rows == [("synth", "CRADL", "GMM 1", "75.0 (60.0 to 90.0)", *["–"] * 5)]
    assert "share of anomalous scans: synth 40.0" in scans.caption
    assert scans.notes == (protocol_tables.NO_HEALTHY_TEST,)
    assert dice.rows == [("synth", "CRADL", "GMM 1", "25.0 (20.0 to 30.0)", "10.0 to 50.0")]
    assert dice.header[3:] == ("Best Dice of each scan (oracle)", "Quartiles")
    cells = "30.0 (20.0 to 40.0)", "35.0 (25.0 to 45.0)", *["–"] * 6, "20.0"
    assert brain.rows == [("synth", "CRADL", "GMM 1", *cells)]
    assert brain.header[-1] == "False positives at 5 %, brain"
    assert protocol_tables.protocol_tables([]) == []


def test_scores_of_scans_themselves_have_columns_where_a_method_gives_them():
    found = [
        estimate("scan", "auroc_max", 0.75),
        estimate("scan", "auroc_max", 0.5, method="mine"),
        estimate("scan", "auroc_given", 0.9, method="mine"),
    ]
    table = protocol_tables.scan_table(protocol_tables.by_key(found))
    assert table.header[6] == "AUROC, of its own" and table.header[10] == "AUPRC, of its own"
    assert [row[3:7] for row in table.rows] == [
        ("75.0", "–", "–", "–"),
        ("50.0", "–", "–", "90.0"),
    ]
    assert "or one of its own" in table.caption


def test_lesions_are_counted_by_size():
    found = []
    for suffix in ("", "_q1", "_q2", "_q3", "_q4"):
        count = 0 if suffix == "_q4" else 2
        found += [
            estimate("lesion", f"lesions{suffix}", count),
            estimate("lesion", f"largest_ml{suffix}", 1.234),
        ]
        for rate in ("0.5", "1", "2", "4"):
            found.append(estimate("lesion", f"ml@{rate}fp", 12.34, 1.0, 20.0))
            if count:  # what is not defined is not estimated
                found.append(estimate("lesion", f"sensitivity@{rate}fp{suffix}", 0.5, 0.0, 1.0))
    table = protocol_tables.lesion_table(protocol_tables.by_key(found))
    label = "synth", "CRADL", "GMM 1"
    assert table.rows[0] == (*label, "all, up to 1.2 ml", "2", *["50.0 (0.0 to 100.0)"] * 4)
    assert table.rows[4] == (*label, "largest quarter", "0", *["–"] * 4)
    assert table.rows[5][3:] == ("marked in a healthy scan, ml", "–", *["12 (1.0 to 20)"] * 4)


def test_groups_of_healthy_scans():
    group = protocol_tables.Group(
        *("baseline", ("pixel", "dense"), "site Guys", 3),
        {"0.05": (0.1, 0.0, 0.2)},
        {"0.05": (1.5, NAN, NAN), "1ml": (0.25, 0.1, 0.4)},
    )
    table = protocol_tables.healthy_table([group], ["note"])
    assert table.header[4:] == ("Slices at 5 %, %", "Volume at 5 %, ml", "Volume at 1ml, ml")
    assert table.rows == [
        (
            *("Baseline", "Gaussian of pixels / Dense", "site Guys", "3"),
            *("10.0 (0.0 to 20.0)", "1.5", "0.25 (0.10 to 0.40)"),
        )
    ]
    assert table.notes == ("note",)
