"""Two real processes, with two virtual devices each, that work as one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from cradl_jax.methods import initial_variables
from cradl_jax.runs.checkpoints import Checkpoints
from cradl_jax.training.steps import adam, create_state
from experiments.study import evaluation, fitting, preprocessing, settings, thresholds, training
from tests.helpers.tiny_study import tiny_config, write_scans

REPOSITORY = Path(__file__).parents[2]
EPOCHS = 12
CONFIG = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from tests.devices.test_processes import get_config
"""


def get_config():
    config = tiny_config()
    config.train.update({"batch_size": 16, "epochs": EPOCHS, "warmup_epochs": 1})
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Slices alone."""
    folder = tmp_path_factory.mktemp("study")
    write_scans(folder / "data")
    preprocessing.preprocess(get_config(), folder)
    (folder / "config.py").write_text(CONFIG)
    return folder


def start(workdir, module, *arguments, count=2, indices=(0, 1), each=((), ())):
    """The processes of a command, with further arguments for `each`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=2")
    command = [sys.executable, "-m", module, f"--config={workdir / 'config.py'}"]
    command += [f"--workdir={workdir}", *arguments]
    command += [f"--coordinator={address}", f"--processes={count}"]
    return address, [
        subprocess.Popen(
            [*command, *each[index], f"--process={index}"],
            cwd=REPOSITORY,
            env=os.environ | {"XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in indices
    ]


def ended(processes, seconds=200):
    """Exit statuses and outputs."""
    try:
        outputs = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs


def steps_in(checkpoints):
    """Of the checkpoints that are whole."""
    return [int(path.name) for path in checkpoints.glob("*") if path.name.isdigit()]


def final_variables(workdir):
    config = get_config()
    variables = initial_variables(settings.network(config, "cradl"), 0, config.data.size)
    with Checkpoints(workdir / "seed0" / "cradl") as checkpoints:
        assert checkpoints.latest_step() % EPOCHS == 0
        return checkpoints.latest(create_state(variables, adam(1e-4, 1e-6, 1, 10))).variables


@pytest.fixture(params=["0", "1"], ids=["pmap", "shard_map"])
def door(request, monkeypatch):
    monkeypatch.setenv("CRADL_SHARD_MAP", request.param)


@pytest.mark.slow
@pytest.mark.usefixtures("door")
def test_two_killed_processes_resume_and_train_as_one(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "two")
    shutil.copytree(workdir, tmp_path / "one")
    _, processes = start(tmp_path / "two", "experiments.simclr")
    kept = tmp_path / "two" / "seed0" / "cradl" / "checkpoints"
    deadline = time.monotonic() + 200
    while not (before := steps_in(kept)):
        assert time.monotonic() < deadline and processes[0].poll() is None
        time.sleep(0.05)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    assert ended(processes)[0] == [-signal.SIGKILL] * 2

    statuses, outputs = ended(start(tmp_path / "two", "experiments.simclr", "--resume")[1])
    assert statuses == [0, 0], outputs
    training.fit(get_config(), tmp_path / "one", "cradl", resume=False)
    found, expected = (final_variables(tmp_path / name) for name in ("two", "one"))
    assert max(before) < max(steps_in(kept))
    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-5, atol=1e-5), found, expected
    )


@pytest.mark.slow
@pytest.mark.usefixtures("door")
def test_two_processes_score_as_one(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "one")
    config = get_config()
    config.train.epochs = 1
    for work in (fitting.fit, thresholds.fit, evaluation.evaluate):
        if work is fitting.fit:
            training.fit(config, tmp_path / "one", "cradl", resume=False)
        work(config, tmp_path / "one", "cradl")
    fitting.fit_baselines(config, tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    written = ["thresholds", "evaluation"]
    for name in written:
        shutil.rmtree(tmp_path / "two" / "seed0" / "cradl" / name)
    for module in ("experiments.thresholds", "experiments.evaluate"):
        arguments = ("--config.methods=cradl", "--config.train.epochs=1")
        statuses, outputs = ended(start(tmp_path / "two", module, *arguments)[1])
        assert statuses == [0, 0], outputs
    for name in ("thresholds/thresholds.json", "evaluation/results.csv"):
        one, two = (tmp_path / n / "seed0" / "cradl" / name for n in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_processes_that_disagree_are_named_before_anything_runs(workdir):
    each = ((), ("--config.train.epochs=7",))
    statuses, outputs = ended(start(workdir, "experiments.simclr", each=each)[1])
    assert statuses == [2, 2]
    for output in outputs:
        assert f"config.train.epochs: process 0 has {EPOCHS}, process 1 has 7" in output
    assert not (workdir / "seed0").exists()


def test_a_coordinator_that_is_not_there_is_named(workdir):
    arguments = ("--meet_seconds=2",)
    address, processes = start(workdir, "experiments.evaluate", *arguments, indices=[1])
    statuses, outputs = ended(processes)
    assert statuses == [2]
    assert f"{address}: expected all processes to meet" in outputs[0]
