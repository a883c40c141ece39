"""Train the encoder with SimCLR on the healthy training slices (Section 3.1, 4.3).

    python -m experiments.simclr --config=configs/hcp.py [--workdir=runs/hcp] [--resume]

Writes WORKDIR/seed<seed>/cradl: checkpoints (the latest, the best by validation loss),
metrics.jsonl and TensorBoard events.
"""

from pathlib import Path

from ml_collections import ConfigDict

from experiments.cli import distributed
from experiments.study import app
from experiments.study.training import RESUME, fit


def main(config: ConfigDict, workdir: Path) -> None:
    """Train CRADL's encoder."""
    fit(config, workdir, "cradl", RESUME.value)


if __name__ == "__main__":
    app.run(distributed.joined(main))
