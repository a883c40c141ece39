"""Say of new scans which slices are abnormal, and where.

    python -m experiments.predict --run=RUN --scan=SCAN [--out=FOLDER]

RUN is the folder of a trained run with its thresholds, e.g. runs/phantom/seed0/cradl, or a file
that experiments.export wrote. SCAN is a brain-extracted volume, a folder of .nii or .nii.gz files,
or a CSV file with a column `image` and optionally `subject`. For each scan it writes the anomaly
map and a mask of what lies above the threshold, on the scan's own voxels, a table of the slices, a
summary and a page for the browser; and summary.csv over all scans. A scan that cannot be used is
named, the others are done, and the exit status is 1.

For research only. Not a medical device.
"""

import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import jax
from absl import flags
from tqdm import tqdm

import cradl_jax
from cradl_jax.devices import processes
from cradl_jax.errors import InputError
from cradl_jax.evaluation.thresholds import RATES
from cradl_jax.prediction import files
from cradl_jax.prediction.inputs import InputScan, find_scans
from experiments.cli import command, distributed

RUN = flags.DEFINE_string("run", None, "A run's folder, or a file that experiments.export wrote.")
SCAN = flags.DEFINE_string("scan", None, "A scan, a folder of scans, or a CSV file of them.")
OUT = flags.DEFINE_string("out", None, "Where to write (default: predictions, in or beside RUN).")
SCORE = flags.DEFINE_string("score", None, "Slice score (default: the one chosen on validation).")
HEATMAP = flags.DEFINE_string("heatmap", None, "Heatmap (default: the one chosen on validation).")
FPR = flags.DEFINE_float(
    "fpr", 0.05, f"False-positive rate of the thresholds, one of {', '.join(RATES)}."
)
flags.mark_flags_as_required(["run", "scan"])
FAULTS = (ValueError, ArithmeticError, OSError, MemoryError)  # that end one scan, not the others
INTERRUPTED = "interrupted; scans that have a _summary.json are done"


def predict(run: cradl_jax.Run, scans: Sequence[InputScan], out: Path) -> list[dict]:
    """Judge every scan; the rows of summary.csv, with `error` where a scan could not be used."""
    rows = []
    for scan in tqdm(scans, "predict", unit="scan"):
        try:
            files.remove(out, scan)
            summary = run.predict(scan.image, scan.name).save(out)
            rows.append(files.overview_row(summary))
        except FAULTS as fault:
            error = str(fault) if isinstance(fault, InputError) else repr(fault)
            if str(scan.image) not in error:
                error = f"{scan.image}: {error}"
            tqdm.write(f"error: {error}", file=sys.stderr)
            rows.append({"scan": scan.name, "image": str(scan.image), "error": error})
        if processes.is_first():
            files.write_table(out / "summary.csv", rows)
    return rows


def main() -> None:
    """Entry point. Several processes share out the scans."""
    distributed.join({"run": RUN.value, "scan": SCAN.value, "out": OUT.value})
    place = Path(RUN.value).expanduser()
    beside = place if place.is_dir() else place.parent
    out = Path(OUT.value).expanduser() if OUT.value else beside / "predictions"
    scans = find_scans(Path(SCAN.value).expanduser())
    run = cradl_jax.load_run(place).using(SCORE.value, HEATMAP.value, FPR.value)
    processes.broadcast_from_first(lambda: files.claim_folder(out))
    own = scans[jax.process_index() :: jax.process_count()]
    in_turn = zip_longest(*processes.all_gather(predict(run, own, out)))
    rows = [row for turn in in_turn for row in turn if row is not None]
    failed = sum(bool(row["error"]) for row in rows)
    if processes.is_first():
        files.write_table(out / "summary.csv", rows)
        print(f"{len(rows) - failed} of {len(rows)} scans: {out}\n{files.NOTICE}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    distributed.declare()
    command.run(main, INTERRUPTED)
