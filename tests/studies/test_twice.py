"""A study started twice at once, and the same study again: all results are the same to the bit."""

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from ml_collections import ConfigDict

from cradl_jax.evaluation import results
from cradl_jax.runs import verification
from cradl_jax.storage import integrity, locks
from experiments import evaluate, thresholds
from experiments.cli import locking
from experiments.study import fitting, preprocessing, training
from tests.helpers.commands import Command
from tests.helpers.tiny_study import tiny_config, write_scans

CONFIG = """
from tests.studies import test_twice

def get_config():
    return test_twice.trained_config({data!r})
"""


def trained_config(data):
    """Return the tiny study's config, this time trained."""
    config = tiny_config()
    config.seeds = (0,)
    config.data.root = data
    config.train.update({"epochs": 2, "warmup_epochs": 1, "batch_size": 32})
    return config


def start(command, config, workdir, *more):
    return Command(command, f"--config={config}", f"--workdir={workdir}", *more)


@pytest.mark.slow
def test_a_study_started_twice_at_once_gives_the_results_of_one(tmp_path):
    data, together, one = (tmp_path / name for name in ("data", "together", "one"))
    write_scans(data)
    (tmp_path / "tiny.py").write_text(CONFIG.format(data=str(data)))
    processes = [start("reproduce", tmp_path / "tiny.py", together) for _ in range(2)]
    ended = [process.end() for process in processes]
    assert [process.returncode for process in ended] == [0, 0], ended
    waited = "".join(process.stderr for process in ended)
    assert re.search(r"waiting for \S+:\d+, which works on ", waited)
    assert not [fault for check in verification.checks(together) for fault in check.faults]
    assert not list((together / ".locks").iterdir())

    config = trained_config(str(data))
    preprocessing.preprocess(config, one)
    training.fit(config, one, "cradl", resume=False)
    fitting.fit(config, one, "cradl")
    fitting.fit_baselines(config, one)
    thresholds.main(config, one)
    evaluate.main(config, one)
    for name in (
        *(
            "cradl/densities/gmm1.npz",
            "cradl/densities/flow.npz",
            "cradl/densities/diagnostics.json",
        ),
        *("cradl/thresholds/thresholds.json", "cradl/evaluation/lesion_test_draws.npz"),
        *("cradl/evaluation/results.csv", "baseline/evaluation/results.csv"),
        *("baseline/densities/pixel.npz", "baseline/densities/patch.npz"),
    ):
        mine, theirs = (study / "seed0" / name for study in (one, together))
        assert mine.read_bytes() == theirs.read_bytes(), name
    rows = [
        row
        for method in ("cradl", "baseline")
        for row in results.read_csv(one / "seed0" / method / "evaluation" / "results.csv")
    ]
    results.write_csv(one / "results.csv", rows)
    assert (one / "results.csv").read_bytes() == (together / "results.csv").read_bytes()


def test_shards_started_at_once_give_the_stores_of_one_command(tmp_path):
    """Both shards at once, the first of them twice; its second process waits for the first."""
    data, together, one = (tmp_path / name for name in ("data", "together", "one"))
    write_scans(data)
    (tmp_path / "tiny.py").write_text(CONFIG.format(data=str(data)))
    processes = [
        start("preprocess", tmp_path / "tiny.py", together, f"--shard={shard}")
        for shard in ("1/2", "2/2", "1/2")
    ]
    ended = [process.end() for process in processes]
    assert [process.returncode for process in ended] == [0, 0, 0], ended
    complete = "healthy train: 4 scans"
    assert any(complete in process.stdout for process in ended), "the last one completes it"
    preprocessing.preprocess(trained_config(str(data)), one)
    for name in ("healthy", "lesion"):
        mine, theirs = (integrity.sums(study / "slices" / name) for study in (one, together))
        assert mine == theirs
        assert not list(integrity.faults(together / "slices" / name))


@locking.exclusive_stage("the work of {}, seed {seed}")
def work(config, workdir, method, again=1):
    return [method] * again


def test_a_stage_runs_when_the_one_that_works_on_it_is_done(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(locks, "POLL_S", 0.01)
    path = tmp_path / ".locks" / "the-work-of-vae-seed-3.lock"
    config = ConfigDict({"seed": 3})
    with ThreadPoolExecutor() as pool, locks.held(path, "the work of vae, seed 3"):
        assert work(config, tmp_path, "cradl", again=2) == ["cradl"] * 2
        other = pool.submit(work, config, tmp_path, "vae")
        with pytest.raises(TimeoutError):
            other.result(timeout=0.2)
        path.unlink()
        assert other.result(timeout=10) == ["vae"]
    assert f":{os.getpid()}, which works on the work of vae, seed 3" in capsys.readouterr().err
