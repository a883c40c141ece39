"""Report which slices of new scans are abnormal, and where.

    cradl-predict --run=RUN --scan=SCAN [--out=FOLDER]

RUN is the folder of a trained run with its thresholds, e.g. runs/phantom/seed0/cradl, or a file
that experiments.export wrote. SCAN is a brain-extracted volume, a folder of volumes (.nii, .nii.gz,
.mgz or .hdr/.img), or a CSV file with a column `image` and optionally `subject`. For each scan it
writes the anomaly map and its findings, connected parts above a threshold, on the scan's own
voxels, tables of the findings and of the slices, a summary and a page for the browser; and
summary.csv over all scans. A scan that cannot be used is named, the others are done, and the exit
status is 1. With --prepare SCAN is raw, its skull may be on: it is prepared as the run's training
scans were by experiments.prepare.

For research only. Not a medical device.
"""

import argparse
import sys
from typing import Any, NoReturn

from cradl_jax.cli import guard, tuning
from cradl_jax.errors import InputError

OPTIONS = {
    "run": "A run's folder, or a file that experiments.export wrote.",
    "scan": "A scan, a folder of scans, or a CSV file of them.",
    "out": "Where to write (default: predictions, in or beside RUN).",
    "score": "Slice score (default: the best on validation, without labels `dense`).",
    "heatmap": "Heatmap (default: the best on validation, without labels `dense`).",
    "fpr": "False-positive rate of the slices' threshold: 0.01, 0.05 or 0.1.",
    "mask": "Threshold of the map, by what healthy validation scans have above: a share of their "
    "brains (0.001, 0.01 or 0.05), `volume` (at most 1 ml in half of them), or `component` (a "
    "connected 1 ml in at most 1 of 20).",
    "smallest": "Volume of the smallest finding in ml.",
    "prepare": "Prepare raw scans as the run's training scans were.",
    "extract": "Tool for brain extraction with --prepare (default: that of the training scans).",
}
REQUIRED = ("run", "scan")
DEFAULTS = {"fpr": 0.05, "mask": "0.001", "smallest": 0.1}
INTERRUPTED = "interrupted; scans that have a _summary.json are done"


class Parser(argparse.ArgumentParser):
    """Reports a fault as every command does."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        guard.refuse(f"{InputError(message)}; see --help")


def main() -> None:
    """Run cradl-predict."""
    guard.keep_streams()
    parser = Parser(
        "cradl-predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name, text in OPTIONS.items():
        kind: dict[str, Any] = {"required": name in REQUIRED}
        if name in DEFAULTS:
            kind = {"type": type(DEFAULTS[name]), "default": DEFAULTS[name]}
        elif name == "prepare":
            kind = {"action": "store_true"}
        parser.add_argument(f"--{name}", help=text, **kind)
    options = vars(parser.parse_args())
    tuning.set_environment()
    guard.run(lambda: run(**options), INTERRUPTED)


def run(**options: Any) -> None:
    """Predict with these `OPTIONS`; exit with status 1 if a scan could not be used."""
    from cradl_jax.prediction.command import predict  # imports JAX

    if predict(**options):
        sys.exit(1)
