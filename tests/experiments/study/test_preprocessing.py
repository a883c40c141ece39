"""What is said of the slices once they are there, before anything is trained."""

import pytest

from experiments.study import preprocessing
from tests.helpers import tiny_study


@pytest.mark.parametrize(("split", "lost"), [("val", "score can be chosen"), ("test", "metric is")])
def test_a_split_without_anomalies_is_told(tmp_path, capsys, split, lost):
    tiny_study.write_scans(tmp_path / "data")
    listed = tmp_path / "data" / "lesion.csv"
    rows = [line.split(",") for line in listed.read_text().splitlines()]
    listed.write_text(
        "".join(",".join([*r[:3], "" if r[1] == split else r[3]]) + "\n" for r in rows)
    )
    preprocessing.preprocess(tiny_study.tiny_config(), tmp_path)
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warned) == 1 and warned[0].startswith(
        f"warning: lesion {split}: expected normal and"
    )
    assert lost in warned[0]
