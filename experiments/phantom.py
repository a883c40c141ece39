"""Write the embedded phantom: healthy brains, brains with foreign objects, brains with lesions.

    python -m experiments.phantom --config=configs/phantom.py [--workdir=runs/phantom]

Writes one BIDS tree of NIfTI files for each data set under config.data.root (default:
WORKDIR/data). Volumes that are there already are kept, if they were made with the same settings.
"""

from pathlib import Path

from ml_collections import ConfigDict

from experiments.study import app


def main(config: ConfigDict, workdir: Path) -> None:
    """Write the data sets of the phantom."""
    from experiments.study import phantom_scans  # imports the library

    phantom_scans.make(config, workdir)


if __name__ == "__main__":
    app.run(main)
