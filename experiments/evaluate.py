"""Score every slice of the anomalous data sets and measure how well the scores tell them apart.

    python -m experiments.evaluate --config=configs/phantom.py [--workdir=runs/phantom]

Does first what is not done: slices, training, densities, thresholds. Writes
WORKDIR/seed<seed>/<method>/evaluation: results.csv (slice-wise and voxel-wise metrics, those at a
threshold as `dice@0.05` by its false-positive rate on healthy scans; beyond the paper also metrics
of the brain alone, of scans and of lesions on test), for each data set and split the slices' scores
and bootstrap draws of the metrics, and what healthy test scans hold (healthy_test.npz).
"""

from pathlib import Path

from ml_collections import ConfigDict

from cradl_jax.names import BASELINE
from experiments.cli import distributed
from experiments.study import app


def main(config: ConfigDict, workdir: Path) -> None:
    """Evaluate the configured methods and the trivial baselines."""
    from experiments.study import stages  # imports the library

    for method in (*config.methods, BASELINE):
        stages.evaluate(config, workdir, method)


if __name__ == "__main__":
    app.run(distributed.joined(main))
