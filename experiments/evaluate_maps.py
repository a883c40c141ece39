"""Evaluate a foreign method: anomaly maps of the study's scans that any tool made.

    python -m experiments.evaluate_maps --maps=FOLDER --name=METHOD --config=configs/phantom.py
        [--workdir=runs/phantom] [--scores=CSV] [--scan_scores=CSV] [--postprocess=False]

FOLDER holds a map of each validation and test scan of all data sets, healthy ones included, in the
scan's own grid: NAME_anomaly.nii.gz, or NAME.nii.gz, after the scan's file NAME.nii.gz, in FOLDER
or its folder named after the data set. Higher is more anomalous, 0 the least. Maps are brought onto
the slices as images are and then treated as those of our methods: label-free thresholds from
healthy validation scans, metrics, intervals. Writes WORKDIR/seed<seed>/METHOD; experiments.report
adds the method to the tables, comparisons and figures.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from experiments.study import app

MAPS = flags.DEFINE_string("maps", None, "Folder of the maps.", required=True)
NAME = flags.DEFINE_string("name", None, "Name of the method in tables.", required=True)
SCORES = flags.DEFINE_string(
    "scores",
    None,
    "CSV file of slice scores, with the columns scan, index (number of the slice along the axis of "
    "the scan's file closest to bottom-top, from 0) and score, and data_set where two data sets "
    "have scans of one name (default: the maximum of the slice's map within the brain).",
)
SCAN_SCORES = flags.DEFINE_string(
    "scan_scores",
    None,
    "CSV file of scores of whole scans, with the columns scan and score, and data_set as above; "
    "they stand in the table of scans beside those that slice scores give.",
)
POSTPROCESS = flags.DEFINE_bool(
    "postprocess", True, "Post-process the maps as ours: 5x5 median, then a Gaussian, on slices."
)
for path in (MAPS, SCORES, SCAN_SCORES):  # an unset variable of a shell is empty
    flags.register_validator(
        path, lambda value: value != "", "expected a path, found none; add it or leave this out"
    )


def main(config: ConfigDict, workdir: Path) -> None:
    """Take in the maps, find their thresholds, and evaluate them."""
    from experiments.study import foreign, stages  # imports the library

    scores, scan_scores = (
        None if table.value is None else Path(table.value).expanduser()
        for table in (SCORES, SCAN_SCORES)
    )
    maps = Path(MAPS.value).expanduser()
    source = foreign.Source(maps, scores, scan_scores, POSTPROCESS.value)
    stages.evaluate_foreign(config, workdir, NAME.value, source)


if __name__ == "__main__":
    app.run(main)
