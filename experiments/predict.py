"""Say of new scans which slices are abnormal, and where.

    python -m experiments.predict --config=configs/phantom.py --scan=SCAN [--out=FOLDER]

Needs a trained run and its thresholds (`experiments.thresholds`). SCAN is a brain-extracted volume,
a folder of .nii or .nii.gz files, or a CSV file with a column `image` and optionally `subject`. For
each scan it writes the anomaly map and a mask of what lies above the threshold, on the scan's own
voxels, a table of the slices, a summary and a page for the browser; and summary.csv over all
scans. A scan that cannot be used is named, the others are done, and the exit status is 1.

For research only. Not a medical device.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

import cradl_jax
from cradl_jax import checkpoints, prediction, prediction_files, report
from cradl_jax import thresholds as healthy
from cradl_jax.data import familiarity
from cradl_jax.data.description import describe, states_orientation
from cradl_jax.data.volumes import read_volume
from cradl_jax.errors import InputError
from cradl_jax.prediction_files import Judgement, Named
from experiments import app, runs, thresholds

SCAN = flags.DEFINE_string("scan", None, "A scan, a folder of scans, or a CSV file of them.")
OUT = flags.DEFINE_string("out", None, "Where to write (default: <run>/predictions).")
METHOD = flags.DEFINE_string("method", None, "Method (default: the config's first).")
SCORE = flags.DEFINE_string("score", None, "Slice score (default: the one chosen on validation).")
HEATMAP = flags.DEFINE_string("heatmap", None, "Heatmap (default: the one chosen on validation).")
RATE = flags.DEFINE_string(
    "fpr", "0.05", f"False-positive rate of the thresholds, one of {', '.join(healthy.RATES)}."
)
SLICES_AT_ONCE = 64  # at most: a scan's last batch is padded
FAULTS = (ValueError, ArithmeticError, OSError, MemoryError)  # that end one scan, not the others


class Model(NamedTuple):
    """All that is needed to judge a scan; it comes from the run's folder.

    Attributes:
        score_slices: the slice score and heatmap.
        slicing: how a scan is sliced.
        judgement: thresholds and what is usual.
        training: what is usual among the training scans.
    """

    score_slices: prediction.ScoreSlices
    slicing: dict
    judgement: Judgement
    training: familiarity.Reference


def load(
    config: ConfigDict,
    workdir: Path,
    method: str,
    score: str | None = None,
    heatmap: str | None = None,
    rate: str = "0.05",
) -> Model:
    """A run's models and thresholds; a score or heatmap that is None is the one chosen.

    Raises:
        InputError: the run, a density or the thresholds are missing or do not belong together, or
            there is no such score, heatmap or rate.
    """
    if rate not in healthy.RATES:
        raise InputError(f"--fpr: expected one of {', '.join(healthy.RATES)}, found {rate!r}")
    scorers, identity = runs.scorers(config, workdir, method)
    known = thresholds.load(thresholds.place(config, workdir, method), identity)
    results = runs.folder(workdir, config.seed, method) / "evaluation" / "results.csv"
    rows = report.read_csv(results) if results.exists() else []
    score = chosen("score", score, list(known.slices), method, "slice", rows)
    heatmap = chosen("heatmap", heatmap, list(known.heatmaps), method, "voxel", rows)
    size = min(config.score.batch_size, SLICES_AT_ONCE)
    devices = jax.local_devices()
    about = {"method": method, "seed": config.seed, "score": score, "heatmap": heatmap}
    about |= {"model": identity, "slicing": known.slicing}
    about["versions"] = {"cradl_jax": cradl_jax.__version__, **checkpoints.versions()}
    return Model(
        prediction.slice_scorer(scorers, score, heatmap, size, devices),
        known.slicing,
        Judgement(known.slices[score], rate, known.heatmaps[heatmap][rate], about),
        known.training,
    )


def chosen(
    flag: str,
    wanted: str | None,
    names: list[str],
    method: str,
    level: str,
    rows: Sequence[report.Result],
) -> str:
    """A score: the wanted one, or the one that validation chose for the first data set, or a GMM.

    Raises:
        InputError: there is no such score.
    """
    if wanted is None:
        by_choice = report.select_scores(rows)
        for dataset in dict.fromkeys(row.dataset for row in rows):
            found = by_choice.get(report.Choice(dataset, level, "full", method))
            if found in names:
                return found
        mixtures = [name for name in names if name.startswith("gmm")]
        return max(mixtures, key=lambda name: int(name.removeprefix("gmm")), default=names[0])
    if wanted not in names:
        raise InputError(f"--{flag}: expected one of {', '.join(names)}, found {wanted!r}")
    return wanted


def judge(model: Model, scan: Named, out: Path) -> dict:
    """Write all files of one scan and return its summary.

    Raises:
        InputError: the scan cannot be used.
    """
    volume = read_volume(scan.image)
    described = describe(volume, oriented=states_orientation(scan.image))
    warnings = familiarity.warnings(described, model.training)
    found = prediction.predict_volume(model.score_slices, volume, model.slicing)
    return prediction_files.write_files(out, scan, volume, found, model.judgement, warnings)


def predict(model: Model, scans: Sequence[Named], out: Path) -> list[dict]:
    """Judge every scan; the rows of summary.csv, with `error` where a scan could not be used."""
    rows = []
    for scan in tqdm(scans, "predict", unit="scan"):
        try:
            rows.append(prediction_files.overview_row(judge(model, scan, out)))
        except FAULTS as fault:
            error = str(fault) if isinstance(fault, InputError) else repr(fault)
            if str(scan.image) not in error:
                error = f"{scan.image}: {error}"
            tqdm.write(f"error: {error}", file=sys.stderr)
            rows.append({"scan": scan.name, "image": str(scan.image), "error": error})
    prediction_files.write_table(out / "summary.csv", rows)
    return rows


def main(config: ConfigDict, workdir: Path) -> None:
    """Entry point."""
    if SCAN.value is None:
        raise InputError("--scan: expected a scan, a folder or a CSV file, found nothing")
    method = METHOD.value or config.methods[0]
    default = runs.folder(workdir, config.seed, method) / "predictions"
    out = Path(OUT.value).expanduser() if OUT.value else default
    scans = prediction_files.find_scans(Path(SCAN.value).expanduser())
    prediction_files.claim_folder(out)
    model = load(config, workdir, method, SCORE.value, HEATMAP.value, RATE.value)
    rows = predict(model, scans, out)
    failed = sum(bool(row["error"]) for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} scans: {out}\n{prediction_files.NOTICE}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
