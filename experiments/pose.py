"""Measure by how much scores fall on scans that stand otherwise than the training scans.

    python -m experiments.pose --config=configs/phantom.py [--workdir=runs/phantom]

Needs an evaluated study. Turns the validation scans by 5, 10 and 20 degrees and shifts them by 5,
10 and 20 mm, and writes WORKDIR/pose/pose.csv and pose.png: AUPRC of slices and voxels of each
method at its own score, of what models its features, and of the baseline.
"""

from pathlib import Path

from ml_collections import ConfigDict

from experiments.study import app


def main(config: ConfigDict, workdir: Path) -> None:
    """Measure all poses for the first seed."""
    from experiments.study import pose  # imports the library

    print(f"poses: {pose.measure(config, workdir)}")


if __name__ == "__main__":
    app.run(main)
