"""Make HCP Synth.: paste foreign objects into the scans that a study leaves out (Section 4.1).

    python -m experiments.synthesize --config=configs/hcp.py

For every data set of the config with `made_from`, the subjects held out of that data set by
config.data.seed get a foreign object each, drawn from the same seed, and their split. Writes a BIDS
tree; scans that are there already are kept, if they were made with the same settings.
"""

from pathlib import Path

from ml_collections import ConfigDict

from experiments.study import app


def main(config: ConfigDict, workdir: Path) -> None:
    """Make every data set that is made from another."""
    from experiments.study import synthesis  # imports the library

    for name in synthesis.made_sets(config):
        synthesis.synthesize(config, workdir, name)


if __name__ == "__main__":
    app.run(main)
