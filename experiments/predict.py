"""Report which slices of new scans are abnormal, and where.

    python -m experiments.predict --run=RUN --scan=SCAN [--out=FOLDER]

RUN is the folder of a trained run with its thresholds, e.g. runs/phantom/seed0/cradl, or a file
that experiments.export wrote. SCAN is a brain-extracted volume, a folder of volumes (.nii, .nii.gz,
.mgz or .hdr/.img), or a CSV file with a column `image` and optionally `subject`. For each scan it
writes the anomaly map and its findings, connected parts above a threshold, on the scan's own
voxels, tables of the findings and of the slices, a summary and a page for the browser; and
summary.csv over all scans. A scan that cannot be used is named, the others are done, and the exit
status is 1. Installed, the command is cradl-predict. With --prepare SCAN is raw, its skull may be
on: it is prepared as the run's training scans were by experiments.prepare.

For research only. Not a medical device.
"""

from absl import flags

from cradl_jax.cli import predict
from cradl_jax.cli.predict import DEFAULTS, OPTIONS
from experiments.cli import command, distributed

RUN, SCAN, OUT, SCORE, HEATMAP, EXTRACT = (
    flags.DEFINE_string(name, None, OPTIONS[name])
    for name in ("run", "scan", "out", "score", "heatmap", "extract")
)
FPR, SMALLEST = (
    flags.DEFINE_float(name, DEFAULTS[name], OPTIONS[name]) for name in ("fpr", "smallest")
)
MASK = flags.DEFINE_string("mask", DEFAULTS["mask"], OPTIONS["mask"])
PREPARE = flags.DEFINE_bool("prepare", False, OPTIONS["prepare"])
flags.mark_flags_as_required(predict.REQUIRED)


def main() -> None:
    """Predict the scans, which several processes share."""
    distributed.join({"run": RUN.value, "scan": SCAN.value, "out": OUT.value})
    predict.run(
        run=RUN.value,
        scan=SCAN.value,
        out=OUT.value,
        score=SCORE.value,
        heatmap=HEATMAP.value,
        fpr=FPR.value,
        mask=MASK.value,
        smallest=SMALLEST.value,
        prepare=PREPARE.value,
        extract=EXTRACT.value,
    )


if __name__ == "__main__":
    distributed.declare()
    command.run(main, predict.INTERRUPTED)
