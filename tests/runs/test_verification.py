"""What does not belong together is refused, and what was changed is named."""

import shutil
from pathlib import Path

import pytest

import cradl_jax
from cradl_jax.errors import InputError
from cradl_jax.evaluation import results
from cradl_jax.runs import archive, verification
from cradl_jax.storage import integrity
from experiments import evaluate, thresholds
from experiments.study import data_sets, evaluation, fitting, preprocessing, runs
from tests.helpers import commands
from tests.helpers.exported import packed, unpacked
from tests.helpers.tiny_study import keep_initial_weights, tiny_config


def config_of(seed):
    config = tiny_config()
    config.seed, config.seeds = seed, (seed,)
    return config


@pytest.fixture(scope="module")
def study(study):
    """Two seeds of CRADL; thresholds and evaluation of the second are made of the first's."""
    workdir = study
    evaluate.main(config_of(0), workdir)
    keep_initial_weights(config_of(1), workdir)
    fitting.fit(config_of(1), workdir, "cradl")
    healthy = data_sets.stores(config_of(0), workdir)["healthy"]
    first, second = (
        runs.fingerprint(config_of(seed), workdir, "cradl", healthy) for seed in (0, 1)
    )
    for part in ("thresholds", "evaluation"):
        place = shutil.copytree(workdir / "seed0/cradl" / part, workdir / "seed1/cradl" / part)
        manifest = place / "manifest.json"
        manifest.write_text(manifest.read_text().replace(first, second))
    results = place / "results.csv"
    results.write_text(results.read_text().replace("\n0,", "\n1,"))
    for part in ("thresholds", "evaluation"):
        integrity.write_checksums(workdir / "seed1/cradl" / part)
    return workdir


@pytest.fixture
def copied(study, tmp_path):
    """A copy of the study, to be damaged; its scans are where they were."""
    for part in ("slices", "splits", "seed0", "seed1"):
        shutil.copytree(study / part, tmp_path / part)
    (tmp_path / "data").symlink_to(study / "data")
    return tmp_path


def replace(target: Path, source: Path):
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


def read(workdir):
    return cradl_jax.load_run(workdir / "seed0/cradl")


def study_again(workdir):
    """What `experiments.reproduce` does after training, when all is there."""
    config = config_of(0)
    fitting.fit(config, workdir, "cradl")
    fitting.fit_baselines(config, workdir)
    thresholds.main(config, workdir)
    evaluate.main(config, workdir)
    evaluation.read_results(config, workdir, "cradl", data_sets.stores(config, workdir))


def other_scans(workdir):
    """Stores of the same settings, but of other scans."""
    config, other = config_of(0), workdir / "other"
    shutil.copytree(workdir / "data", other / "data")
    image = other / "data" / "healthy-train0.nii.gz"
    shutil.copy(other / "data" / "healthy-train1.nii.gz", image)
    preprocessing.preprocess(config, other)
    return other / "slices" / "healthy"


def other_slicing(workdir):
    config, other = config_of(0), workdir / "other"
    config.data.root = str(workdir / "data")
    config.data.sets.lesion.offset = 2
    preprocessing.preprocess(config, other)
    return other / "slices" / "lesion"


@pytest.mark.parametrize(
    ("part", "source", "use", "message"),
    [
        ("slices/healthy", other_scans, study_again, "seed0/cradl: .*data or weights .*expected"),
        (
            "slices/lesion",
            other_slicing,
            study_again,
            "slices/lesion: .*offset: expected 0, found 2",
        ),
        ("slices/lesion/index.csv", "slices/healthy/index.csv", study_again, r"lesion/index\.csv"),
        ("seed0/cradl/checkpoints", "seed1/cradl/checkpoints", read, "seed: expected 0, found 1"),
        ("seed0/cradl", "seed1/cradl", study_again, "seed: expected 0, found 1"),
        ("seed0/cradl/densities", "seed1/cradl/densities", read, "densities: .*or weights .*found"),
        ("seed0/cradl/densities/gmm1.npz", "seed1/cradl/densities/gmm1.npz", read, "gmm1.npz: exp"),
        (
            "seed0/cradl/thresholds",
            "seed1/cradl/thresholds",
            read,
            "thresholds found with the mod",
        ),
        ("seed0/cradl/evaluation", "seed1/cradl/evaluation", read, "evaluate found with the mod"),
        ("seed0/cradl/evaluation", "seed1/cradl/evaluation", study_again, "data or weights"),
        ("seed0/cradl/thresholds", "seed0/baseline/thresholds", read, "found those of others"),
        (
            "seed0/cradl/evaluation/results.csv",
            "seed1/cradl/evaluation/results.csv",
            study_again,
            "results.csv: expected the file as it was written",
        ),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(copied, part, source, use, message):
    source = copied / source if isinstance(source, str) else source(copied)
    replace(copied / part, source)
    with pytest.raises(InputError, match=message):
        use(copied)


def test_exported_run_of_other_parts_is_refused(study, tmp_path):
    for seed in (0, 1):
        run = cradl_jax.load_run(study / f"seed{seed}/cradl").contents
        archive.write(tmp_path / f"{seed}.safetensors", run)
    (about, own), (_, others) = (unpacked(tmp_path / f"{n}.safetensors") for n in (0, 1))
    for part in ("network/", "densities/gmm1/", "densities/flow/"):
        theirs = {name: array for name, array in others.items() if name.startswith(part)}
        mixed = packed(tmp_path / "mixed.safetensors", about, own | theirs)
        with pytest.raises(InputError, match=r"mixed\.saf.*other than those that were exported"):
            cradl_jax.load_run(mixed)


def flip(path: Path) -> bytes:
    """Change one bit in the middle of a file; returns what it held."""
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    return whole


def results_of(workdir):
    parts = sorted(workdir.glob("seed*/*/evaluation/results.csv"))
    return [row for part in parts for row in results.read_csv(part)]


def faults(workdir):
    return [fault for check in verification.checks(workdir) for fault in check.faults]


def test_one_bit_in_any_file_is_named_and_nothing_else(study):
    """A file of every kind that the commands wrote, and a scan; runs are verified alone."""
    results.write_csv(study / "results.csv", results_of(study))
    integrity.write_checksums(study, "results.csv")  # in place of a report
    assert faults(study) == []
    files = [path for path in study.rglob("*") if path.is_file() and "data" not in path.parts]
    files.append(study / "data" / "lesion-test1.nii.gz")
    kinds = {(path.parent.name, path.name) for path in files}
    assert len(kinds) > 30
    seen = set()
    for path in files:
        inside = path.relative_to(study).parts
        of_run = inside[0] in ("seed0", "seed1")
        kind = inside[of_run : 2 + 3 * of_run], path.suffix
        if kind in seen or not path.stat().st_size:
            continue
        seen.add(kind)
        whole = flip(path)
        found = faults(study.joinpath(*inside[:2]) if of_run else study)
        path.write_bytes(whole)
        assert found and all(fault.startswith(f"{path}: ") for fault in found), (path, found)
    assert faults(study) == []


def test_what_was_moved_or_half_written_is_named(copied):
    (copied / "data").unlink()
    assert faults(copied / "seed0" / "cradl") == []
    shutil.copytree(copied / "slices", copied / "again" / "slices")
    left = [copied / "seed0/cradl/thresholds/partial_x.json", copied / "seed0/partial_y"]
    for path in left:
        path.touch()
    found = faults(copied)
    assert [fault.split(": ")[0] for fault in found] == [str(copied), *map(str, sorted(left))]
    assert f"no {integrity.SUMS}" in found[0] and "interrupted write" in found[1]
    shutil.copytree(copied / "slices", copied / "slices" / "healthy.partial")
    assert "healthy.partial" in "".join(faults(copied))


def test_a_folder_without_checksums_is_named_with_its_command(copied):
    run, baseline = copied / "seed0" / "cradl", copied / "seed0" / "baseline"
    commands = {
        copied: "report",
        copied / "slices" / "lesion": "preprocess",
        copied / "splits": "preprocess",
        run: "train --resume",
        run / "thresholds": "thresholds",
        baseline / "densities": "density",
        baseline / "evaluation": "evaluate",
    }
    for place in commands:
        (place / integrity.SUMS).unlink(missing_ok=True)
    found = dict(fault.split(": ", 1) for fault in faults(copied))
    assert found.keys() == {*map(str, commands)}
    for place, command in commands.items():
        assert found[str(place)].startswith(f"no {integrity.SUMS}; the command that writes it was")
        assert f"; run python -m experiments.{command} with the study's" in found[str(place)]
    run.rename(run.with_name("foreign"))
    (run.with_name("foreign") / "densities").rename(run.with_name("foreign") / "heatmaps")
    (found,) = faults(run.with_name("foreign"))
    assert "run python -m experiments.evaluate_maps --name=foreign --maps=... with" in found


def test_moved_and_changed_scans_are_named(study, copied):
    (copied / "data").unlink()
    shutil.copytree(study / "data", copied / "data")
    (copied / "data" / "healthy-val1.nii.gz").rename(copied / "data" / "elsewhere.nii.gz")
    shutil.copy(copied / "data" / "lesion-val0.nii.gz", copied / "data" / "lesion-test1.nii.gz")
    found = [fault for fault in faults(copied) if ".nii.gz" in fault]
    assert len(found) == 2
    assert "healthy-val1.nii.gz: moved or removed" in found[0]
    assert "lesion-test1.nii.gz: changed since it was sliced" in found[1]


def test_the_command_prints_a_line_a_check_and_exits_with_a_status(copied):
    run = copied / "seed0" / "cradl"
    good = commands.run("verify", f"--run={run}")
    assert good.returncode == 0, good.stderr
    lines = good.stdout.splitlines()
    assert all(line.startswith("ok    ") for line in lines[:-1])
    assert lines[-1] == f"all {len(lines) - 1} checks passed"
    flip(run / "thresholds" / "thresholds.json")
    bad = commands.run("verify", f"--run={run}")
    assert bad.returncode == 1 and bad.stdout.count("wrong ") == 1
    assert f"{run / 'thresholds' / 'thresholds.json'}: found another content" in bad.stdout
    with pytest.raises(InputError, match="nowhere: expected an exported run"):
        list(verification.checks(copied / "nowhere"))
