"""Stages killed at random moments: the same command gives the results of a run without a kill."""

import functools
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cradl_jax.cli.guard import in_words
from cradl_jax.cli.interruption import REQUEUE
from cradl_jax.methods import initial_variables
from cradl_jax.runs.checkpoints import Checkpoints
from cradl_jax.storage.integrity import SUMS
from cradl_jax.training.steps import TrainState, adam, create_state
from experiments.study import settings
from tests.helpers import stages, tiny_study
from tests.helpers.stages import RUN, STAGES, Stage, finish, without

QUICK = pytest.mark.parametrize("study", [True], indirect=True, ids=["quick"])
FULL = pytest.mark.parametrize("study", [False], indirect=True, ids=["full"])


@pytest.fixture(scope="module")
def study(request, tmp_path_factory):
    """Return the study that nothing interrupted, compiled quickly or as the commands do."""
    stages.quickly = request.param
    workdir = tmp_path_factory.mktemp("uninterrupted")
    tiny_study.write_scans(workdir / "data")
    for command in ("preprocess", "simclr", "density", "thresholds", "evaluate"):
        assert finish(stages.start(command, workdir, workdir / "log")) == 0
    return workdir


def duration(study: Path, stage: Stage, place: Path) -> float:
    """Return the seconds that the stage takes, with all compiled; the result is the same."""
    without(study, stage, place)
    process = stages.start(stage.command, place, place / "log", *stage.arguments)
    stages.wait_for(stage.begins, place / "log", process)
    begun = time.monotonic()
    assert finish(process) == 0
    seconds = time.monotonic() - begun
    check(study, stage, place)
    return seconds


def live(stage: Stage, place: Path, number: signal.Signals | None, moment: float) -> int:
    """Run a stage, send it a signal some seconds after its work began; return its exit status."""
    process = stages.start(stage.command, place, place / "log", *stage.arguments)
    if number is not None:
        stages.wait_for(stage.begins, place / "log", process)
        process.join(moment)
        if process.is_alive():
            process.kill() if number == signal.SIGKILL else process.terminate()
    status = finish(process)
    said = (place / "log").read_text()
    assert "Traceback" not in said, said
    if status == REQUEUE:
        assert number == signal.SIGTERM and "the same command" in said
    return status


def survive(
    study: Path, stage: Stage, place: Path, *, seconds: float, kills: int, terms: int
) -> int:
    """Kill a stage, each `terms`-th time by SIGTERM, at random moments within so many seconds.

    It starts over when it ends. Returns how often it ended.
    """
    rng = np.random.default_rng(7)
    ended, killed = 0, 0
    without(study, stage, place)
    while killed < kills:
        number = signal.SIGTERM if killed % terms == terms - 1 else signal.SIGKILL
        status = live(stage, place, number, rng.uniform(0, seconds))
        if status in (0, -signal.SIGTERM):  # the latter while Python, all done, shuts down
            check(study, stage, place)
            without(study, stage, place)
            ended += 1
            continue
        assert status == (REQUEUE if number == signal.SIGTERM else -signal.SIGKILL)
        killed += 1
    assert live(stage, place, None, 0) == 0
    check(study, stage, place)
    return ended + 1


def check(expected: Path, stage: Stage, found: Path) -> None:
    """Assert that what the stage made is the same to the bit, and nothing is left half written."""
    for path in stage.makes:
        files = [path] if (expected / path).is_file() else below(expected, path)
        assert files == ([path] if (found / path).is_file() else below(found, path))
        for file in files:
            same(expected / file, found / file)
    if stage.command == "simclr":
        for wanted, got in zip(*map(weights, (expected / RUN, found / RUN)), strict=True):
            jax.tree.map(np.testing.assert_array_equal, wanted, got)
        assert not list((found / RUN / "checkpoints").glob("*tmp*"))


def below(root: Path, folder: Path) -> list[Path]:
    """List the files that readers see, without checkpoints, TensorBoard's and what comes after.

    Checksums are not compared either: they cover times as well.
    """
    other = {"checkpoints", "tensorboard", "densities", "thresholds", "evaluation", SUMS}
    files = (path.relative_to(root) for path in (root / folder).rglob("[!.]*") if path.is_file())
    return sorted(path for path in files if not other & set(path.relative_to(folder).parts))


def same(expected: Path, found: Path) -> None:
    """Assert that files agree: logs but for their times, manifests but for their commit."""
    if expected.suffix == ".npz":
        wanted, got = np.load(expected), np.load(found)
        assert wanted.files == got.files
        for name in wanted.files:
            np.testing.assert_array_equal(wanted[name], got[name])
    elif expected.name == "metrics.jsonl":
        lines = [[json.loads(line) for line in p.open()] for p in (expected, found)]
        for line in (*lines[0], *lines[1]):
            del line["train/slices_per_second"]
        assert lines[0] == lines[1]
    elif expected.name == "manifest.json":
        wanted, got = (json.loads(path.read_text()) for path in (expected, found))
        assert wanted | {"git_commit": None} == got | {"git_commit": None}
    else:
        assert expected.read_bytes() == found.read_bytes(), found


def weights(run: Path):
    """Return the latest state, the best weights, and the steps of both."""
    state = template()
    with Checkpoints(run, create=False) as kept:
        steps = np.array([kept.latest_step(), kept.best_step()])
        best = kept.restore(kept.best_step(), variables=state.variables)
        return kept.latest(state), best["variables"], steps


@functools.cache
def template() -> TrainState:
    """Return a state of the study's shapes."""
    config = stages.get_config()
    variables = initial_variables(settings.network(config, "cradl"), 0, config.data.size)
    return create_state(variables, adam(1e-3, 0.0, 1, 10))


@QUICK
@pytest.mark.parametrize(
    ("name", "seconds", "kills"),
    [
        ("preprocessing", 0.3, 2),
        ("training", 3, 2),
        pytest.param("em", 1, 1, marks=pytest.mark.slow),
        pytest.param("evaluation", 1, 1, marks=pytest.mark.slow),
    ],
)
def test_a_killed_stage_ends_as_if_it_had_not_been(study, tmp_path, name, seconds, kills):
    survive(study, STAGES[name], tmp_path / "run", seconds=seconds, kills=kills, terms=2)


@pytest.mark.slow
@FULL
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_killed_at_25_moments_ends_as_if_it_had_not_been(study, tmp_path, name):
    stage, place = STAGES[name], tmp_path / "run"
    seconds = duration(study, stage, place)
    ended = survive(study, stage, place, seconds=seconds, kills=25, terms=5)
    print(f"{name}: 25 kills, 5 by SIGTERM, within {seconds:.1f} s; {ended} ends, all the same")


@pytest.mark.slow
@QUICK
def test_sigterm_ends_a_computation_that_python_waits_for(study, tmp_path):
    """EM would go on without end."""
    place, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(study, place)
    shutil.rmtree(place / RUN / "densities")
    endless = ("--config.gmm.tolerance=0", "--config.gmm.max_iterations=10000000")
    process = stages.start("density", place, log, *endless)
    stages.wait_for("fit densities", log, process)
    process.join(5)
    process.terminate()
    asked = time.monotonic()
    assert finish(process) == REQUEUE
    assert time.monotonic() - asked < 60
    assert not (place / RUN / "densities" / "gmm2.npz").exists()


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 6 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as fault:
        pytest.skip(f"a small disk needs the right to mount one: {fault}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Write a file that takes all the space there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return ballast


@QUICK
@pytest.mark.parametrize(
    "name", ["training", *(pytest.param(n, marks=pytest.mark.slow) for n in ("flow", "evaluation"))]
)
def test_a_full_disk_is_named_and_the_same_command_continues(study, small_disk, tmp_path, name):
    stage, log = STAGES[name], tmp_path / "log"
    place = without(study, stage, small_disk / "run")
    process = stages.start(stage.command, place, log, *stage.arguments)
    stages.wait_for(stage.begins, log, process)
    while name == "training" and process.is_alive() and not saved(place / RUN):
        time.sleep(0.002)
    ballast = fill(small_disk)
    assert finish(process) == 2
    said = log.read_text()
    assert "Traceback" not in said, said
    (error,) = (line for line in said.splitlines() if line.startswith("error: "))
    assert error.startswith(f"error: {place}") and "the same command continues" in error, said
    ballast.unlink()
    assert name != "training" or saved(place / RUN)
    assert finish(stages.start(stage.command, place, log, *stage.arguments)) == 0
    check(study, stage, place)


def saved(run: Path) -> list[Path]:
    """List the whole checkpoints."""
    return [path for path in (run / "checkpoints").glob("*") if path.name.isdigit()]


@QUICK
def test_a_disk_that_is_too_small_is_named_before_training(study, small_disk, tmp_path):
    stage, log = STAGES["training"], tmp_path / "log"
    place = without(study, stage, small_disk / "run")
    fill(small_disk)
    with (small_disk / "ballast").open("r+b") as file:
        file.truncate((small_disk / "ballast").stat().st_size - 100_000)
    assert finish(stages.start(stage.command, place, log, *stage.arguments)) == 2
    assert re.search(r"expected \S+ MB of free disk space for the checkpoints", log.read_text())
    assert not saved(place / RUN)


@QUICK
def test_training_that_diverges_names_step_scans_and_what_is_kept(study, tmp_path):
    """The weights are 1e37 after the second step; the loss of the third is not finite."""
    place, log = without(study, STAGES["training"], tmp_path / "run"), tmp_path / "log"
    rate = "--config.train.learning_rate=1e38"
    assert finish(stages.start("simclr", place, log, rate)) == 2
    said = log.read_text()
    assert "Traceback" not in said, said
    for found in ("step 3: expected finite", "of 4 scans (healthy-train0", "step 2 is the last"):
        assert found in said
    fault = json.loads((place / RUN / "diverged.json").read_text())
    assert fault == {"steps": [3], "kept": 2, "scans": [f"healthy-train{i}" for i in range(4)]}
    with Checkpoints(place / RUN, create=False) as kept:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept.latest(template())))


@pytest.mark.slow
@QUICK
def test_a_device_without_the_memory_names_what_to_lower(study, tmp_path):
    place, log = without(study, STAGES["training"], tmp_path / "run"), tmp_path / "log"
    petabytes = "--config.model.features=10000000"
    assert finish(stages.start("simclr", place, log, petabytes)) == 2
    said = log.read_text()
    assert "Traceback" not in said, said
    assert re.search(r"error: not enough memory \(RESOURCE_EXHAUSTED: .+\); lower config\.", said)
    assert "config.train.batch_size" in said and "config.score.batch_size" in said


@pytest.mark.parametrize(
    "allocate",
    [lambda: np.zeros(1 << 58, np.uint8), lambda: jnp.zeros(1 << 50).block_until_ready()],
    ids=["machine", "device"],
)
def test_memory_that_does_not_suffice_is_said_so(allocate):
    with pytest.raises((MemoryError, jax.errors.JaxRuntimeError)) as raised:
        allocate()
    assert re.fullmatch(r"not enough memory \(.+\); try less", in_words(raised.value, "try less"))
