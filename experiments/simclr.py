"""Train the encoder with SimCLR on the healthy training slices (Section 3.1, 4.3).

    python -m experiments.simclr --config=configs/hcp.py [--workdir=runs/hcp] [--resume]

Slices the scans first, unless that is done. Writes WORKDIR/seed<seed>/cradl: checkpoints (the
latest, the best by validation loss), metrics.jsonl and TensorBoard events.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from cradl_jax.names import CRADL
from experiments.cli import distributed
from experiments.study import app

RESUME = flags.DEFINE_bool("resume", False, "Continue from the latest checkpoint.")


def main(config: ConfigDict, workdir: Path) -> None:
    """Train CRADL's encoder."""
    from experiments.study import stages  # imports the library

    stages.train_all(config, workdir, (CRADL,), RESUME.value)


if __name__ == "__main__":
    app.run(distributed.joined(main))
