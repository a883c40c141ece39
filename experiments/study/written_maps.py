"""Write our maps and slice scores of the evaluated scans, for any other tool to evaluate.

They have the form that `foreign` takes in: a map a scan, in the scan's own grid, and one table.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from cradl_jax.data.slices.native import slice_centers_mm, to_volume, write_map
from cradl_jax.data.slices.preprocess import slice_geometry
from cradl_jax.devices import processes
from cradl_jax.prediction.files import file_indices, write_table
from cradl_jax.prediction.foreign_maps import COLUMNS, DATA_SET
from cradl_jax.prediction.inputs import MAP
from cradl_jax.prediction.scan import ScoreSlices, slice_scorer
from cradl_jax.runs.folder import chosen_score, read_thresholds
from cradl_jax.scoring import Batch
from cradl_jax.storage.files import require_space
from cradl_jax.storage.integrity import check, is_complete, write_checksums
from cradl_jax.storage.manifest import write_manifest
from experiments.cli.locking import exclusive_stage
from experiments.study import data_sets, evaluation, runs
from experiments.study.data_sets import HEALTHY
from experiments.study.foreign import Evaluated, evaluated_scans, read_evaluated

FOLDER = "maps"  # in the folder of a run
TABLE = "slices.csv"


@exclusive_stage("maps of {}, seed {seed}")
def write(config: ConfigDict, workdir: Path, method: str) -> None:
    """Write the maps of one of our methods, of its best score and heatmap, unless they are there.

    These are what `experiments.predict` takes by default: those of the best validation AUPRC, the
    mean over the data sets.
    """
    run, opened = runs.folder(workdir, config.seed, method), data_sets.stores(config, workdir)
    made_from = runs.fingerprint(config, workdir, method, opened[HEALTHY])
    chosen = chosen_scores(config, workdir, method, opened)
    about = {**evaluation.settings(config, opened, method), **chosen}
    folder = run / FOLDER
    processes.broadcast_from_first(lambda: write_manifest(folder, about, made_from))
    if processes.broadcast_from_first(lambda: is_complete(folder)):
        check(folder, "run python -m experiments.evaluate --maps again")
        return
    scorers = runs.scorers(config, workdir, method, opened[HEALTHY])
    settings, names = config.score, (chosen["score"], chosen["heatmap"])
    score_slices = slice_scorer(
        scorers, *names, settings.batch_size, jax.devices(), settings.neighbours
    )
    rows = list(write_scans(folder, score_slices, evaluated_scans(opened)))

    def finish() -> None:
        write_table(folder / TABLE, rows)
        write_checksums(folder, "manifest.json", TABLE, *opened)

    processes.broadcast_from_first(finish)


def chosen_scores(
    config: ConfigDict, workdir: Path, method: str, opened: Mapping[str, Any]
) -> dict[str, str]:
    """Return the names of the slice score and of the heatmap that are best on validation."""
    healthy = opened[HEALTHY]
    made_from = runs.fingerprint(config, workdir, method, healthy)
    run = runs.folder(workdir, config.seed, method)
    known = read_thresholds(run, made_from, healthy.manifest["fingerprint"])
    rows = evaluation.read_results(config, workdir, method, opened)
    return {
        "score": chosen_score(rows, method, "slice", list(known.slices)),
        "heatmap": chosen_score(rows, method, "voxel", list(known.heatmaps)),
    }


def write_scans(
    folder: Path, score_slices: ScoreSlices, scans: list[Evaluated]
) -> Iterator[dict[str, Any]]:
    """Write a map of each scan; yield the rows of the table of slice scores.

    All processes call this together, and the first one writes.
    """
    for one in tqdm(scans, "maps", unit="scan", disable=not processes.is_first()):
        store, rows = one.store, one.rows
        batch = Batch(store.images[rows], store.brains[rows], store.position[rows])
        scores, heatmaps = score_slices(batch)
        store.release()
        if processes.is_first():
            volume = read_evaluated(one)
            brain = volume.data != 0
            settings = store.manifest["settings"]
            geometry = slice_geometry(brain, volume.spacing_mm, **settings)
            stack = np.zeros((geometry.n_slices, *heatmaps.shape[1:]), np.float32)
            stack[one.slices] = heatmaps
            anomaly_map = to_volume(stack, geometry, brain)
            path = folder / one.scan.data_set / f"{one.scan.name}{MAP}"
            require_space(folder, anomaly_map.nbytes, f"the map of {one.scan.name}")
            write_map(path, anomaly_map, volume.origin)
            centers = slice_centers_mm(geometry, volume.affine)[one.slices]
            indices = file_indices(volume.origin, centers)
            for index, score in zip(indices, scores, strict=True):
                values = (one.scan.name, int(index), score)
                yield {DATA_SET: one.scan.data_set, **dict(zip(COLUMNS, values, strict=True))}
