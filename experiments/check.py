"""Check a study's data before anything runs: what is there, what is wrong, what it will take.

    python -m experiments.check --config=configs/phantom.py [--workdir=runs/phantom]

Reads the lists of scans, all headers, and the masks of anomalous data sets. Prints for each data
set its subjects, scans and splits, how the scans lie, and how many are annotated; then the disk and
memory that the study needs, and how long training takes here, estimated from a few steps on random
slices. Nothing is written. Faults are listed at the end, and the exit status is 2; those of the
voxels of scans are found by experiments.preprocess alone.
"""

from pathlib import Path

from ml_collections import ConfigDict

from experiments.study import app


def main(config: ConfigDict, workdir: Path) -> None:
    """Check all data sets, then say what the study will take."""
    from experiments.study import checking  # imports the library

    checking.check(config, workdir)


if __name__ == "__main__":
    app.run(main)
