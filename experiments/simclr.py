"""Train the encoder with SimCLR on the healthy training slices (Section 3.1, 4.3).

    python -m experiments.simclr --config=configs/hcp.py [--workdir=runs/hcp] [--resume]

Writes WORKDIR/seed<seed>/cradl: checkpoints (the latest, the best by validation loss),
metrics.jsonl and TensorBoard events.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from cradl_jax import objectives
from cradl_jax.parallel import AXIS
from experiments import app, runs
from experiments.training import fit

RESUME = flags.DEFINE_bool("resume", False, "Continue from the latest checkpoint.")


def train(config: ConfigDict, workdir: Path, resume: bool) -> None:
    """Train one seed of CRADL's encoder."""
    model = runs.simclr(config)
    view = runs.view(config, shift=config.augment.shift)
    objective = objectives.simclr(model, view, config.train.temperature, AXIS)
    fit(config, workdir, "cradl", objective, runs.initial_variables(config, model), resume)


def main(config: ConfigDict, workdir: Path) -> None:
    """Entry point."""
    train(config, workdir, RESUME.value)


if __name__ == "__main__":
    app.run(main)
