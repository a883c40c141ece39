"""The card of an export says what the run's folder, its slices and its scans say."""

import json
import shutil

import numpy as np
import pytest

import cradl_jax
from cradl_jax.errors import InputError
from cradl_jax.evaluation.results import read_csv
from cradl_jax.runs import verification
from experiments import evaluate
from experiments.study import model_card
from tests.helpers import commands
from tests.helpers.exported import packed, unpacked, with_checksum
from tests.helpers.tiny_study import tiny_config
from tests.reporting.test_card import split, tables

PEOPLE = """participant_id\tage\tsex\tsite
healthy-train0\t20\tF\tUlm
healthy-train1\t30.4\tM\tUlm
healthy-train2\tn/a\tn/a\tn/a
lesion-test0\t89+\tM\t[x](http://evil.example)
"""


@pytest.fixture(scope="module")
def study(study):
    data = study / "data"
    (data / "participants.tsv").write_text(PEOPLE)
    about = {"Name": "Lumpy ellipsoids", "License": "CC0", "DatasetDOI": 3}
    (data / "dataset_description.json").write_text(json.dumps(about))
    return study


@pytest.fixture(scope="module")
def before(study, folder, tmp_path_factory):
    """The export of the run before it was evaluated, by the command."""
    path = tmp_path_factory.mktemp("before") / "cradl.safetensors"
    ran = commands.run("export", f"--run={folder}", f"--out={path}", "--license=cc0-1.0")
    ran.check_returncode()
    assert f"{path.with_suffix('.md')}: its model card" in ran.stdout and not ran.stderr
    return path


@pytest.fixture(scope="module")
def evaluated(before, study, folder):
    evaluate.main(tiny_config(), study)
    return folder


def export(source, out, license="unknown"):
    beside = model_card.export(source, cradl_jax.load_run(source).contents, out, license)
    return beside.read_text(encoding="utf-8")


def test_a_run_without_evaluation_says_so(before):
    text = before.with_suffix(".md").read_text(encoding="utf-8")
    assert unpacked(before)[0]["card"] == cradl_jax.load_run(before).contents.card == text
    fields, body = split(text)
    assert "**This run was not evaluated.**" in body and "model-index" not in fields
    assert fields["license"] == "cc0-1.0" and "Weights: cc0-1.0." in body
    assert not [fault for check in verification.checks(before) for fault in check.faults]


def test_figures_are_those_of_the_evaluation(evaluated, study, tmp_path):
    run = cradl_jax.load_run(evaluated)
    fields, body = split(export(evaluated, tmp_path / "cradl.safetensors"))
    data, sources, figures, *_ = tables(body)
    rows = {r[2:7]: r.value for r in read_csv(evaluated / "evaluation" / "results.csv")}
    draws = np.load(evaluated / "evaluation" / "lesion_test_draws.npz")
    for cells, level, score in zip(
        figures[1:], ("slice", "voxel"), (run.score_name, run.heatmap_name), strict=True
    ):
        expected = ["lesion", f"{level}s"]
        for metric in ("prevalence", "auprc", "auroc", "dice@0.05", "sensitivity@0.05", "fpr@0.05"):
            value = f"{100 * rows[score, 'lesion', 'test', level, metric]:.1f}"
            if metric in ("auprc", "auroc"):
                drawn = draws[f"{level}-{score}-{metric}"]
                low, high = np.nanpercentile(100 * drawn, (2.5, 97.5))
                value = f"{value} ({low:.1f} to {high:.1f})"
            expected.append(value)
        assert cells == expected
    assert len(fields["model-index"][0]["results"]) == 4
    assert [row[:4] for row in data[1:]] == [
        *(["healthy", "train", "4", "4"], ["healthy", "val", "3", "3"]),
        *(["lesion", "val", "1", "1"], ["lesion", "test", "2", "2"]),
    ]
    ages = "median 25, 20 to 30, not stated 2"
    assert data[1][5:] == ["5 x 5 x 5", "Ulm 2, not stated 2", ages, "F 1, M 1, not stated 2"]
    assert data[4][6:] == ["[x](http://evil.example) 1, not stated 1", "–", "M 1, not stated 1"]
    assert sources[1][1:4] == ["Lumpy ellipsoids", "CC0", "–"]


def test_an_export_of_an_export_is_the_same_with_its_card(before, tmp_path):
    export(before, tmp_path / "again.safetensors")
    for ending in (".safetensors", ".md"):
        again, first = tmp_path / f"again{ending}", before.with_suffix(ending)
        assert again.read_bytes() == first.read_bytes()
    with pytest.raises(InputError, match="--license: expected the folder of a run"):
        export(before, tmp_path / "again.safetensors", "mit")


def test_an_export_from_before_cards_goes_on_and_its_card_says_what_is_lost(before, tmp_path):
    about, tensors = unpacked(before)
    del about["card"]
    old = packed(tmp_path / "old.safetensors", with_checksum(about, tensors), tensors)
    run = cradl_jax.load_run(old)
    assert run.contents.card is None and run.about == cradl_jax.load_run(before).about
    text = export(old, tmp_path / "new.safetensors", "mit")
    assert model_card.LOST in text and model_card.NO_CARD in text and 'license: "mit"' in text
    spoiled = with_checksum({**about, "card": 3}, tensors)
    with pytest.raises(InputError, match="a model card that is no text"):
        cradl_jax.load_run(packed(tmp_path / "old.safetensors", spoiled, tensors))


def test_slices_that_are_not_there_or_are_others_are_named(evaluated, study, tmp_path, capsys):
    place = tmp_path / "study" / "seed0" / "cradl"
    shutil.copytree(evaluated, place)
    shutil.copytree(study / "slices" / "healthy", tmp_path / "study" / "slices" / "lesion")
    text = export(place, tmp_path / "cradl.safetensors")
    printed = capsys.readouterr().err
    for name in ("healthy", "lesion"):
        assert model_card.NO_SLICES.format(name) in text
        assert f"warning: the card says little of the data set {name}: {tmp_path}" in printed
    assert "thresholds come from 3 healthy" in " ".join(text.split()) and str(tmp_path) not in text


def test_an_evaluation_whose_draws_changed_is_refused(evaluated, tmp_path):
    place = tmp_path / "seed0" / "cradl"
    shutil.copytree(evaluated, place)
    draws = place / "evaluation" / "lesion_test_draws.npz"
    draws.write_bytes(draws.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"draws\.npz: expected the file as it was written"):
        export(place, tmp_path / "cradl.safetensors")
    assert not (tmp_path / "cradl.safetensors").exists()


def test_a_card_that_somebody_edited_and_other_files_are_kept(before, folder, tmp_path):
    out = tmp_path / "cradl.safetensors"
    export(before, out)
    export(before, out)  # its own card is replaced
    beside = out.with_suffix(".md")
    beside.write_text(beside.read_text() + "Edited.\n")
    kept = [path.read_bytes() for path in (out, beside)]
    with pytest.raises(InputError, match=r"cradl\.md: expected no file, or the model card of"):
        export(folder, out)
    assert [path.read_bytes() for path in (out, beside)] == kept
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"README\.md: expected no file"):
        export(before, tmp_path / "README")
    with pytest.raises(InputError, match=r"found \.md; call it run\.safetensors"):
        export(before, tmp_path / "run.md")


@pytest.mark.parametrize("license", ["", "CC BY 4.0", "mit\n---", "../x"])
def test_a_licence_that_is_no_identifier_is_refused(folder, tmp_path, license):
    with pytest.raises(InputError, match="--license: expected an identifier such as cc-by"):
        export(folder, tmp_path / "cradl.safetensors", license)
