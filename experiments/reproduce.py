"""Run a whole study: data, training, densities, evaluation, tables, figures and a report.

    python -m experiments.reproduce --config=configs/phantom.py [--workdir=runs/phantom]

Stages that are done are skipped, so that the same command continues an interrupted study. One that
another command works on is waited for.
"""

import os
import sys
import webbrowser
from pathlib import Path

from ml_collections import ConfigDict

from cradl_jax.names import BASELINE
from experiments.cli import distributed
from experiments.study import app


def main(config: ConfigDict, workdir: Path) -> None:
    """Run every stage of the study; what is done is kept."""
    from cradl_jax.devices.processes import broadcast_from_first  # imports the library
    from experiments.study import fitting, report, runs, settings, stages

    broadcast_from_first(lambda: fitting.require_device_room(config))
    for method in config.methods:
        settings.network(config, method)
    broadcast_from_first(lambda: runs.require_encoder(config, workdir, config.seeds))
    stages.slice_scans(config, workdir)
    for seed in config.seeds:
        config.seed = seed
        for method in config.methods:
            stages.fit_densities(config, workdir, method)
        for method in (*config.methods, BASELINE):
            stages.evaluate(config, workdir, method)
    with stages.stage("report"):
        broadcast_from_first(lambda: show(report.write(config, workdir), workdir))


def show(page: Path, workdir: Path) -> None:
    """Name the report, and open it where somebody looks."""
    address = page.resolve().as_uri()
    print(f"\ntables: {(workdir / 'tables.md').resolve()}\nreport: {address}")
    if sys.stdout.isatty() and (os.environ.get("DISPLAY") or sys.platform in ("darwin", "win32")):
        webbrowser.open(address)


if __name__ == "__main__":
    app.run(distributed.joined(main))
