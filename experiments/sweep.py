"""Measure which brightness and texture of a foreign object each method can see.

    python -m experiments.sweep --config=configs/phantom.py [--workdir=runs/phantom]

Needs an evaluated study whose healthy data set has test scans. Paints a ball into each of them, as
bright as tissue or not, flat or striped (Meissen et al. 2022, arXiv:2202.03826: residuals are blind
where an anomaly is as bright as tissue), and writes WORKDIR/sweep/sweep.csv and sweep.png: AUPRC of
slices and voxels of each method at its own score, of what models its features, and of the baseline.
"""

from pathlib import Path

from ml_collections import ConfigDict

from experiments.study import app


def main(config: ConfigDict, workdir: Path) -> None:
    """Measure all objects for the first seed."""
    from experiments.study import sweep  # imports the library

    print(f"sweep: {sweep.measure(config, workdir)}")


if __name__ == "__main__":
    app.run(main)
