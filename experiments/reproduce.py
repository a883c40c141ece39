"""Run a whole study: data, training, densities, evaluation, tables, figures and a report.

    python -m experiments.reproduce --config=configs/phantom.py [--workdir=runs/phantom]

Stages that are done are skipped, so that the same command continues an interrupted study. One that
another command works on is waited for.
"""

import os
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_collections import ConfigDict

from cradl_jax.names import BASELINE
from experiments.cli import distributed
from experiments.study import app


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Announce a stage and how long it took, in the first process."""
    from cradl_jax.devices import processes

    say = print if processes.is_first() else lambda *_, **__: None
    say(f"== {name}", flush=True)
    started = time.monotonic()
    yield
    say(f"   {time.monotonic() - started:.0f} s", flush=True)


def main(config: ConfigDict, workdir: Path) -> None:
    """Run every stage of the study; what is done is kept."""
    from cradl_jax.devices.processes import broadcast_from_first  # imports the library
    from experiments.study import (
        evaluation,
        fitting,
        phantom_scans,
        preprocessing,
        report,
        settings,
        thresholds,
        training,
    )

    for method in config.methods:
        settings.network(config, method)
    if "phantom" in config:
        with stage("phantom"):
            broadcast_from_first(lambda: phantom_scans.make(config, workdir))
    with stage("preprocess"):
        broadcast_from_first(lambda: preprocessing.preprocess(config, workdir))
    for seed in config.seeds:
        config.seed = seed
        for method in config.methods:
            with stage(f"train {method}, seed {seed}"):
                training.fit(config, workdir, method, resume=True)
            with stage(f"densities of {method}, seed {seed}"):
                fitting.fit(config, workdir, method)
        with stage(f"densities of {BASELINE}, seed {seed}"):
            fitting.fit_baselines(config, workdir)
        for method in (*config.methods, BASELINE):
            with stage(f"thresholds of {method}, seed {seed}"):
                thresholds.fit(config, workdir, method)
            with stage(f"evaluate {method}, seed {seed}"):
                evaluation.evaluate(config, workdir, method)
    with stage("report"):
        broadcast_from_first(lambda: show(report.write(config, workdir), workdir))


def show(page: Path, workdir: Path) -> None:
    """Name the report, and open it where somebody looks."""
    address = page.resolve().as_uri()
    print(f"\ntables: {(workdir / 'tables.md').resolve()}\nreport: {address}")
    if sys.stdout.isatty() and (os.environ.get("DISPLAY") or sys.platform in ("darwin", "win32")):
        webbrowser.open(address)


if __name__ == "__main__":
    app.run(distributed.joined(main))
