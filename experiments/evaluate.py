"""Score every slice of the anomalous data sets and measure how well the scores tell them apart.

    python -m experiments.evaluate --config=configs/phantom.py [--workdir=runs/phantom] [--maps]

Does first what is not done: slices, training, densities, thresholds. Writes
WORKDIR/seed<seed>/<method>/evaluation: results.csv (slice-wise and voxel-wise metrics, those at a
threshold as `dice@0.05` by its false-positive rate on healthy scans; beyond the paper also metrics
of the brain alone, of scans and of lesions on test), for each data set and split the slices' scores
and bootstrap draws of the metrics, and what healthy test scans hold (healthy_test.npz). --maps
writes the maps for other tools beside it, in the form that experiments.evaluate_maps takes:
maps/<data set>/<scan>_anomaly.nii.gz on the scan's own voxels and maps/slices.csv, of each
validation and test scan, the healthy ones too, with the score and heatmap that are best on
validation.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from cradl_jax.names import BASELINE
from experiments.cli import distributed
from experiments.study import app

MAPS = flags.DEFINE_bool("maps", False, "Write the maps and slice scores, too, for other tools.")


def main(config: ConfigDict, workdir: Path, maps: bool = False) -> None:
    """Evaluate the configured methods and the trivial baselines, and write their maps."""
    from experiments.study import stages  # imports the library

    for method in (*config.methods, BASELINE):
        stages.evaluate(config, workdir, method)
        if maps:
            stages.write_maps(config, workdir, method)


if __name__ == "__main__":
    app.run(distributed.joined(lambda *study: main(*study, maps=MAPS.value)))
