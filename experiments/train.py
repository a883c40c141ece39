"""Train the networks of all methods of a config on the healthy training slices.

    python -m experiments.train --config=configs/field.py [--workdir=runs/field] [--resume]

`--config.methods=dae,disyre` trains these alone. Slices the scans first, unless that is done.
Writes WORKDIR/seed<seed>/<method>: checkpoints (the latest, the best by validation loss),
metrics.jsonl and TensorBoard events.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from cradl_jax.names import METHODS
from experiments.cli import distributed
from experiments.study import app

RESUME = flags.DEFINE_bool("resume", False, "Continue from the latest checkpoint.")


def main(config: ConfigDict, workdir: Path) -> None:
    """Train every method of the config."""
    from experiments.study import stages  # imports the library

    stages.train_all(config, workdir, METHODS, RESUME.value)


if __name__ == "__main__":
    app.run(distributed.joined(main))
