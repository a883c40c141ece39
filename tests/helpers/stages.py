"""Commands of a tiny study as processes to be killed, forked with everything imported."""

import multiprocessing
import os
import shutil
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from cradl_jax.cli import interruption
from cradl_jax.storage.integrity import SUMS
from cradl_jax.training import loop
from experiments.study import app, training
from tests.helpers import tiny_study

CONTEXT = multiprocessing.get_context("forkserver")
HERE = Path(__file__).resolve()
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # to compile
xla_flags = ""
RUN = Path("seed0", "cradl")


class Stage(NamedTuple):
    """A command to be killed from when it says `begins`; `makes` is what it writes."""

    command: str
    begins: str
    makes: tuple[Path, ...]
    arguments: tuple[str, ...] = ()


EVALUATION = (RUN / "evaluation", Path("seed0", "baseline", "evaluation"))
MIXTURE = (RUN / "densities" / "gmm2.npz", RUN / "densities" / "gmm2.json")
FLOW = tuple(RUN / "densities" / name for name in ("flow.npz", "flow.json", "diagnostics.json"))
STAGES = {
    "preprocessing": Stage("preprocess", "slicing", (Path("slices"), Path("splits"))),
    "training": Stage("simclr", "train cradl", (Path("seed0"),), ("--resume",)),
    "em": Stage("density", "fit densities", (*MIXTURE, *FLOW)),
    "flow": Stage("density", "flow:", FLOW),
    "evaluation": Stage("evaluate", "score", EVALUATION),
}


def get_config():
    """The study's config; this file is the commands' --config."""
    config = tiny_study.tiny_config()
    config.train.update({"epochs": 3, "warmup_epochs": 1, "batch_size": 16})
    config.gmm.update({"components": (2,), "restarts": 20, "tolerance": 1e-3})
    config.flow.update({"blocks": 2, "hidden": 8, "epochs": 40, "batch_size": 16})
    config.data.workers = 2
    return config


def serve() -> None:
    """Import once what the forked processes need, but do not start JAX; each has one CPU device."""
    os.environ["PYTHONPATH"] = str(HERE.parents[2])
    CONTEXT.set_forkserver_preload(
        ["tests.helpers.stages", "experiments.simclr", "experiments.study.evaluation"]
    )


def start(command: str, workdir: Path, log: Path, *arguments: str) -> multiprocessing.Process:
    """Start `experiments.<command>` on the study; what it says goes to `log`."""
    log.unlink(missing_ok=True)
    process = CONTEXT.Process(target=_run, args=(command, workdir, log, arguments, xla_flags))
    process.start()
    return process


def _run(
    command: str, workdir: Path, log: Path, arguments: tuple[str, ...], xla_flags: str
) -> None:
    os.environ["XLA_FLAGS"] = xla_flags
    loop.LONGEST_CHUNK = 2  # several an epoch, and a checkpoint after each
    training.SAVE_SECONDS = 0
    interruption.GRACE = 1
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.argv = [command, f"--config={HERE}", f"--workdir={workdir}", *arguments]
    app.run(import_module(f"experiments.{command}").main)


def wait_for(text: str, log: Path, process: multiprocessing.Process) -> None:
    """Until the process has said `text`, or has ended."""
    while process.is_alive() and not (log.exists() and text in log.read_text()):
        time.sleep(0.002)


def finish(process: multiprocessing.Process) -> int:
    """Wait for its end; its exit status."""
    process.join(300)
    assert process.exitcode is not None, "hangs"
    return process.exitcode


def without(study: Path, stage: Stage, place: Path) -> Path:
    """A copy of the study before a stage."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(study, place)
    for path in stage.makes:
        shutil.rmtree(place / path) if (place / path).is_dir() else (place / path).unlink()
        (place / path.parent / SUMS).unlink(missing_ok=True)
    return place
