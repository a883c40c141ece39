"""Commands of a tiny study as processes to be killed, forked with everything imported."""

import multiprocessing.process
import os
import shutil
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import jax

from cradl_jax.cli import interruption
from cradl_jax.storage.integrity import SUMS
from cradl_jax.training import loop
from experiments.study import app, training
from tests.helpers import commands, tiny_study

HERE = Path(__file__).resolve()
quickly = True
RUN = Path("seed0", "cradl")


class Stage(NamedTuple):
    """A command to be killed once it has printed `begins`; it writes `makes`."""

    command: str
    begins: str
    makes: tuple[Path, ...]
    arguments: tuple[str, ...] = ()


EVALUATION = (RUN / "evaluation", Path("seed0", "baseline", "evaluation"))
MIXTURE = (RUN / "densities" / "gmm2.npz", RUN / "densities" / "gmm2.json")
FLOW = tuple(RUN / "densities" / name for name in ("flow.npz", "flow.json", "diagnostics.json"))
STAGES = {
    "preprocessing": Stage("preprocess", "slicing", (Path("slices"), Path("splits"))),
    "training": Stage("simclr", "train cradl", (RUN,), ("--resume",)),
    "em": Stage("density", "fit densities", (*MIXTURE, *FLOW)),
    "flow": Stage("density", "flow:", FLOW),
    "evaluation": Stage("evaluate", "score", EVALUATION),
}


def get_config():
    """Return the study's config; this file is the commands' --config."""
    config = tiny_study.tiny_config()
    config.train.update({"epochs": 3, "warmup_epochs": 1, "batch_size": 16})
    config.gmm.update({"components": (2,), "restarts": 20, "tolerance": 1e-3})
    config.flow.update({"blocks": 2, "hidden": 8, "epochs": 40, "batch_size": 16})
    config.data.workers = 2
    return config


def start(
    command: str, workdir: Path, log: Path, *arguments: str
) -> multiprocessing.process.BaseProcess:
    """Start `experiments.<command>` on the study, with one CPU device; it prints to `log`."""
    log.unlink(missing_ok=True)
    process = commands.CONTEXT.Process(
        target=_run, args=(command, workdir, log, arguments, quickly)
    )
    process.start()
    return process


def _run(command: str, workdir: Path, log: Path, arguments: tuple[str, ...], quickly: bool) -> None:
    os.environ["XLA_FLAGS"] = ""
    jax.config.update(commands.QUICKLY, quickly)
    loop.LONGEST_CHUNK = 2  # several an epoch, and a checkpoint after each
    training.SAVE_SECONDS = 0
    interruption.GRACE = 1
    commands.redirect(log, log)
    sys.argv = [command, f"--config={HERE}", f"--workdir={workdir}", *arguments]
    app.run(import_module(f"experiments.{command}").main)


def wait_for(text: str, log: Path, process: multiprocessing.process.BaseProcess) -> None:
    """Wait until the process has printed `text`, or has ended."""
    while process.is_alive() and not (log.exists() and text in log.read_text()):
        time.sleep(0.002)


def finish(process: multiprocessing.process.BaseProcess) -> int:
    """Wait for its end and return its exit status."""
    process.join(300)
    assert process.exitcode is not None, "hangs"
    return process.exitcode


def without(study: Path, stage: Stage, place: Path) -> Path:
    """Return a copy of the study before a stage."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(study, place)
    for path in stage.makes:
        shutil.rmtree(place / path) if (place / path).is_dir() else (place / path).unlink()
        (place / path.parent / SUMS).unlink(missing_ok=True)
    return place
