"""Train the baselines of the config's methods, a VAE or a ceVAE (Section 4.4, appendix B).

    python -m experiments.vae --config=configs/vae.py [--workdir=runs/vae] [--resume]

Slices the scans first, unless that is done. Writes WORKDIR/seed<seed>/<method>: checkpoints (the
latest, the best by validation loss), metrics.jsonl and TensorBoard events.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from cradl_jax.names import VAES
from experiments.cli import distributed
from experiments.study import app

RESUME = flags.DEFINE_bool("resume", False, "Continue from the latest checkpoint.")


def main(config: ConfigDict, workdir: Path) -> None:
    """Train every baseline among the config's methods."""
    from experiments.study import stages  # imports the library

    stages.train_all(config, workdir, VAES, RESUME.value)


if __name__ == "__main__":
    app.run(distributed.joined(main))
