"""Measure which brightness and texture of a foreign object the scores of a study can see."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from cradl_jax.data.scans.layouts import Scan
from cradl_jax.data.scans.volumes import read_volume
from cradl_jax.data.slices.preprocess import Slices, normalized_slices
from cradl_jax.data.synthetic.anomalies import paint_ball
from cradl_jax.errors import InputError
from cradl_jax.evaluation import bootstrap, results
from cradl_jax.prediction.files import write_table
from cradl_jax.reporting import paper
from cradl_jax.reporting.figures import sweep_maps
from cradl_jax.storage.files import replacing
from experiments.cli.locking import exclusive_stage
from experiments.study import data_sets
from experiments.study.data_sets import HEALTHY
from experiments.study.pose import auprcs, chosen_scorers
from experiments.study.synthesis import subject_key

BRIGHTNESS = (-1.5, -0.75, 0.0, 0.75, 1.5)  # from the brain's mean, in its standard deviations
TEXTURE = (0.0, 0.5, 1.0)  # standard deviation of the object, in the same unit

BATCH = 32  # slices, since those of one scan at a time would leave most of a larger one empty


class Seen(NamedTuple):
    """AUPRC of a method's scores on objects of one brightness and texture.

    The mean over healthy test scans, each with such an object, and its 95 % interval over scans.
    """

    method: str
    score: str
    level: str
    brightness: float
    texture: float
    auprc: float
    low: float
    high: float


@exclusive_stage("the sweep over brightness and texture")
def measure(config: ConfigDict, workdir: Path) -> Path:
    """Write sweep.csv and sweep.png, and return the folder that holds them.

    Raises:
        InputError: there are no healthy test scans or no anomalous data set, a method is not
            evaluated, or a scan cannot be read.
    """
    scans, _ = data_sets.find_data_set(config, workdir, HEALTHY)
    scans = [scan for scan in scans if scan.split == "test"]
    if not scans:
        raise InputError(
            f"config.data.sets.{HEALTHY}: expected scans in the split test to paint objects into, "
            "found none; give the healthy data set a test split"
        )
    if len(data_sets.names(config)) == 1:
        raise InputError(
            "config.data.sets: expected an anomalous data set on which each method chose its "
            "score, found none; add one"
        )
    own = ConfigDict({**config, "score": {**config.score, "batch_size": BATCH}})
    scorers = dict(chosen_scorers(own, workdir, data_sets.stores(config, workdir)))
    found: dict[tuple[str, str, str, float, float], list[float]] = {}
    for scan in tqdm(scans, "sweep", unit="scan"):
        for look, slices in painted(scan, data_sets.slicing(config, HEALTHY), config.data.seed):
            for (method, score), score_slices in scorers.items():
                for level, auprc in auprcs(score_slices, [slices]).items():
                    found.setdefault((method, score, level, *look), []).append(auprc)
    folder = workdir / "sweep"
    weights = bootstrap.draw_weights(config.data.seed, len(scans))
    write(folder, [Seen(*key, *over_scans(np.array(x), weights)) for key, x in found.items()])
    return folder


def painted(
    scan: Scan, slicing: Mapping, seed: int
) -> Iterator[tuple[tuple[float, float], Slices]]:
    """Yield brightness and texture with the slices of a scan that has such an object.

    It lies at one place in all of them.

    Raises:
        InputError: the scan cannot be read, or has no room for an object.
    """
    volume = read_volume(scan.image)
    spacing_mm = tuple(round(step, 3) for step in volume.spacing_mm)  # compiled once for a grid
    key, brain = subject_key(seed, scan.subject), volume.data != 0
    for look in product(BRIGHTNESS, TEXTURE):
        data, mask = jax.device_get(paint_ball(key, volume.data, brain, spacing_mm, *look))
        slices, *_ = normalized_slices(data, mask, volume.spacing_mm, **slicing)
        if not slices.masks.any():
            raise InputError(
                f"{scan.image}: expected a brain with room for an object, found none deep enough; "
                "check the scan and its spacing"
            )
        yield look, slices


def over_scans(values: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of values [S] and its interval over resamples, weights [draws, S]."""
    drawn = weights.any(1)
    ends = bootstrap.interval(weights[drawn] @ values / len(values))
    return float(values.mean()), *ends


def write(folder: Path, seen: Sequence[Seen]) -> None:
    """Write the table and the figure."""
    write_table(folder / "sweep.csv", (one._asdict() for one in seen))
    maps: dict[tuple[str, str], dict[tuple[float, float], float]] = {}
    for level in results.LEVELS:
        for one in seen:
            if one.level == level:
                name = f"{paper.method_name(one.method)}\n{paper.score_name(one.score)}"
                maps.setdefault((level, name), {})[one.brightness, one.texture] = one.auprc
    with replacing(folder / "sweep.png") as aside:
        sweep_maps(maps).savefig(aside, dpi=160, format="png")
