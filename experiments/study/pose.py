"""Measure what scores lose on scans that are turned or shifted against the training scans."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from cradl_jax.data.scans.layouts import Scan
from cradl_jax.data.scans.volumes import read_mask, read_volume
from cradl_jax.data.slices.preprocess import Slices, normalized_slices
from cradl_jax.data.slices.store import SliceStore, anomalous
from cradl_jax.data.synthetic.pose import moved
from cradl_jax.evaluation import results
from cradl_jax.evaluation.metrics import binary_metrics
from cradl_jax.names import BASELINE, METHODS, has_encoder, names_of_features
from cradl_jax.prediction.files import write_table
from cradl_jax.prediction.scan import ScoreSlices, slice_scorer
from cradl_jax.reporting import paper
from cradl_jax.reporting.figures import pose_curves
from cradl_jax.scoring import Batch
from cradl_jax.storage.files import replacing
from experiments.cli.locking import exclusive_stage
from experiments.study import data_sets, evaluation, runs, settings
from experiments.study.data_sets import HEALTHY

POSES = ((0, 0), (5, 0), (10, 0), (20, 0), (0, 5), (0, 10), (0, 20))  # degrees, millimeters


class Loss(NamedTuple):
    """AUPRC of a method's scores on the validation scans of a data set in one pose."""

    method: str
    score: str
    dataset: str
    level: str
    degrees: float
    shift_mm: float
    auprc: float


@exclusive_stage("the study of poses")
def measure(config: ConfigDict, workdir: Path) -> Path:
    """Write pose.csv and pose.png, and return the folder that holds them.

    Raises:
        InputError: a method is not evaluated, or a scan cannot be read.
    """
    opened = data_sets.stores(config, workdir)
    scorers = dict(chosen_scorers(config, workdir, opened))
    losses = []
    sets = [name for name in opened if name != HEALTHY]
    for name, (degrees, shift_mm) in tqdm(list(product(sets, POSES)), "poses", unit="pose"):
        scans, _ = data_sets.find_data_set(config, workdir, name)
        scans = [scan for scan in scans if scan.split == "val"]
        slicing = data_sets.slicing(config, name)
        slices = [in_pose(scan, slicing, degrees, shift_mm) for scan in scans]
        for (method, score), score_slices in scorers.items():
            for level, auprc in auprcs(score_slices, slices).items():
                losses.append(Loss(method, score, name, level, degrees, shift_mm, auprc))
    folder = workdir / "pose"
    write(folder, losses)
    return folder


def chosen_scorers(
    config: ConfigDict, workdir: Path, opened: Mapping[str, SliceStore]
) -> Iterator[tuple[tuple[str, str], ScoreSlices]]:
    """Yield a scorer for each method at its own score and those of features, and for the baseline.

    Own scores are those that were chosen on the first anomalous data set.
    """
    first = next(name for name in opened if name != HEALTHY)
    for method in (*config.methods, BASELINE):
        rows = evaluation.read_results(config, workdir, method, opened)
        chosen = results.select_scores(rows)
        scorers = runs.scorers(config, workdir, method, opened[HEALTHY])
        own = [results.own_choice(chosen, first, level, method) for level in results.LEVELS]
        pairs = {"own": own}
        if method in METHODS and has_encoder(method):
            names = names_of_features(settings.of_densities(config))
            pairs |= {name: [name, name] for name in names}
        for name, (score, heatmap) in pairs.items():
            how = config.score.batch_size, jax.local_devices(), config.score.neighbours
            yield (method, name), slice_scorer(scorers, score, heatmap, *how)


def in_pose(scan: Scan, slicing: dict, degrees: float, shift_mm: float) -> Slices:
    """Read a scan, move it, and slice it."""
    volume = read_volume(scan.image)
    mask = np.zeros(volume.data.shape, bool)
    if scan.mask is not None:
        mask = read_mask(scan.mask, volume.origin)
    data, mask = (moved(one, volume.spacing_mm, degrees, shift_mm) for one in (volume.data, mask))
    slices, *_ = normalized_slices(data, mask, volume.spacing_mm, **slicing)
    return slices


def auprcs(score_slices: ScoreSlices, scans: Sequence[Slices]) -> dict[str, float]:
    """Return the AUPRC of slices and of voxels over the scans, by level."""
    scores, maps = zip(
        *(score_slices(Batch(one.images, one.brains, one.position)) for one in scans), strict=True
    )
    masks = np.concatenate([one.masks for one in scans])
    return {
        "slice": binary_metrics(np.concatenate(scores), anomalous(masks))["auprc"],
        "voxel": binary_metrics(np.concatenate(maps).ravel(), masks.ravel())["auprc"],
    }


def write(folder: Path, losses: Sequence[Loss]) -> None:
    """Write the table and the figure."""
    write_table(folder / "pose.csv", (loss._asdict() for loss in losses))
    figure = pose_curves(
        {
            (level, f"{paper.method_name(method)}, {paper.score_name(score)}"): [
                (loss.degrees, loss.shift_mm, loss.auprc)
                for loss in losses
                if (loss.method, loss.score, loss.level) == (method, score, level)
            ]
            for level in results.LEVELS
            for method, score in dict.fromkeys((loss.method, loss.score) for loss in losses)
        }
    )
    with replacing(folder / "pose.png") as aside:
        figure.savefig(aside, dpi=160, format="png")
