"""Estimate label-free thresholds and percentiles on healthy validation scans.

    python -m experiments.thresholds --config=configs/phantom.py [--workdir=runs/phantom]

Does first what is not done: slices, training, densities. Scores the healthy validation slices, also
with the trivial baselines, and writes WORKDIR/seed<seed>/<method>/thresholds/thresholds.json, which
`experiments.evaluate` and `experiments.predict` read: for each slice score and heatmap the
thresholds at 1, 5 and 10 % false positives (of all slices; of all their pixels, inside and outside
the brain, as the paper counts them), percentiles of the slices by height and of the scans, how to
slice a scan, and what the training scans look like.
"""

from pathlib import Path

from ml_collections import ConfigDict

from cradl_jax.names import BASELINE
from experiments.cli import distributed
from experiments.study import app


def main(config: ConfigDict, workdir: Path) -> None:
    """Estimate the thresholds of the configured methods and the trivial baselines."""
    from experiments.study import stages  # imports the library

    for method in (*config.methods, BASELINE):
        stages.find_thresholds(config, workdir, method)


if __name__ == "__main__":
    app.run(distributed.joined(main))
