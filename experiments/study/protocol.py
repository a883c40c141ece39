"""The protocol beyond the paper: scans, lesions, and the voxels of the brain alone, on test scans.

What healthy test scans hold is measured once for all data sets and kept as arrays by name, S scans
in the order of their numbers:

    scans                        [n] number of each slice's scan
    slice-<score>                [n] slice scores
    slice-<score>-share@<rate>   [S] share of the slices above a label-free threshold
    scan-<score>                 [S] scores of the scans themselves, where a foreign method has them
    voxel-<heatmap>-ml@<rate>    [S] ml of the brain above a label-free threshold
    voxel-<heatmap>-thresholds, -counts, -marked
                                 see `lesions.Findings`; what is marked in ml
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from cradl_jax.data.slices.store import SliceStore
from cradl_jax.evaluation import bootstrap, lesions, metrics, scan_level
from cradl_jax.evaluation.scan_level import Measures
from experiments.study import runs, scores
from experiments.study.scores import HeatmapFiles, ScanMaps, scan_maps, voxel_ml

BINS = 512  # of the score: resamples' AUPRC and AUROC are off by about 1/BINS at most
Arrays = Mapping[str, np.ndarray]
ByRate = Mapping[str, float]  # label-free thresholds


def measure_healthy(
    config: ConfigDict,
    folder: Path,
    healthy: SliceStore,
    scorers: Sequence[tuple[runs.Source, Any]],
    label_free: Mapping[str, Mapping[str, ByRate]],
) -> dict[str, np.ndarray]:
    """Measure healthy test scans; see the module for what is returned. Heatmaps lie in `folder`.

    All processes call this together; the first one measures, the others return nothing of use.
    """
    rows = healthy.rows("test")
    scans, ml = healthy.scans[rows], voxel_ml(healthy, rows)[:, None]
    arrays = {"scans": scans}
    for scorer, params in scorers:
        with HeatmapFiles(folder) as files:
            label = "healthy_test"
            found = scores.score(config, healthy, rows, scorer, params, files, label)
            for name, values in found.items():
                arrays[f"slice-{name}"] = values
                for rate, threshold in label_free["slice"][name].items():
                    shares = [(values[scans == one] > threshold).mean() for one in np.unique(scans)]
                    arrays[f"slice-{name}-share@{rate}"] = np.array(shares)
            for name, values in scores.of_scans(scorer, healthy, rows).items():
                arrays[f"scan-{name}"] = values
            for name, file in files.named.items():
                maps = scan_maps(file, healthy, rows)
                measured = healthy_maps(maps, label_free["brain"][name], ml)
                arrays |= {f"voxel-{name}-{key}": values for key, values in measured.items()}
    return arrays


def healthy_maps(maps: ScanMaps, thresholds: ByRate, ml: np.ndarray) -> dict[str, np.ndarray]:
    """Return findings in healthy scans and what label-free thresholds mark, voxels of `ml` [S, 1].

    The names are the ends of those in the module.
    """
    above, n_voxels = [], 0
    for heatmap, brain, _ in maps():
        values = heatmap[brain]
        n_voxels += values.size
        above.append([np.count_nonzero(values > limit) for limit in thresholds.values()])
    marked = np.array(above) * ml
    findings = lesions.sweep(lambda: (stacks[:2] for stacks in maps()), n_voxels)
    at_rates = {f"ml@{rate}": marked[:, at] for at, rate in enumerate(thresholds)}
    return at_rates | findings._replace(marked=findings.marked * ml)._asdict()


class MeasuredScans(NamedTuple):
    """The S test scans of an anomalous data set, and the H healthy ones beside them.

    Attributes:
        store: of the data set.
        rows: [n] of the slices.
        scans: [n] index of each slice's scan.
        weights: [draws, S] of the resamples, see `bootstrap.draw_weights`.
        found: the lesions of each.
        healthy: see the module; empty without healthy test scans.
        healthy_weights: [draws, H].
    """

    store: SliceStore
    rows: np.ndarray
    scans: np.ndarray
    weights: np.ndarray
    found: Sequence[lesions.Lesions]
    healthy: Arrays
    healthy_weights: np.ndarray


def scans_of(
    store: SliceStore, rows: np.ndarray, weights: np.ndarray, seed: int, healthy: Arrays
) -> MeasuredScans:
    """Find the lesions of test scans; see `MeasuredScans`. `seed` is that of `weights`."""
    scans = np.unique(store.scans[rows], return_inverse=True)[1]
    found = [lesions.find_lesions(brain & mask) for _, brain, mask in scores.scans(store, rows)]
    count = len(np.unique(healthy["scans"])) if healthy else 1
    # Another seed, so that as many scans of either kind are not drawn alike.
    healthy_weights = bootstrap.draw_weights(seed + 1, count, len(weights))
    return MeasuredScans(store, rows, scans, weights, found, healthy, healthy_weights)


def of_heatmap(
    test: MeasuredScans, name: str, file: IO[bytes], thresholds: ByRate
) -> Iterator[tuple[str, Measures]]:
    """Yield level and measures of the heatmap that lies in `file`.

    Those of lesions need healthy test scans.
    """
    maps = scan_maps(file, test.store, test.rows)
    yield "voxel", in_brain(maps, thresholds, test.weights)
    dice, highest = [], []
    for (heatmap, brain, mask), found in zip(maps(), test.found, strict=True):
        dice.append(scan_level.dice_of_scan(heatmap[brain], mask[brain], thresholds))
        highest.append(lesions.peaks(heatmap, found))
    for metric in dice[0]:
        values = np.array([one[metric] for one in dice])
        yield "scan", scan_level.over_scans(metric, values, test.weights)
    if test.healthy:
        kept = (test.healthy[f"voxel-{name}-{field}"] for field in lesions.Findings._fields)
        scan = np.repeat(np.arange(len(test.found)), [len(one.sizes) for one in test.found])
        sizes_ml = np.concatenate([one.sizes for one in test.found])
        sizes_ml = sizes_ml * voxel_ml(test.store, test.rows)[scan]
        weights = test.healthy_weights, test.weights
        highest = np.concatenate(highest)
        yield "lesion", lesions.froc(lesions.Findings(*kept), highest, scan, sizes_ml, *weights)


def of_scores(
    test: MeasuredScans,
    name: str,
    values: np.ndarray,
    labels: np.ndarray,
    of_scans: np.ndarray | None = None,
) -> Iterator[tuple[str, Measures]]:
    """Yield level and measures of a slice score: what tells anomalous scans from healthy ones.

    A scan with an anomalous slice is anomalous, the others do not count. Without healthy test scans
    there is nothing to yield.

    Args:
        test: the scans.
        name: of the score.
        values: [n] of the slices.
        labels: [n] bool, whether they are anomalous.
        of_scans: [S] scores of the scans themselves, if the method has them.
    """
    if not test.healthy:
        return
    anomalous = np.isin(np.arange(test.weights.shape[1]), test.scans[labels])
    normal = scan_level.scan_scores(test.healthy[f"slice-{name}"], test.healthy["scans"])
    scored = scan_level.scan_scores(values, test.scans)
    if of_scans is not None:
        normal[scan_level.GIVEN] = test.healthy[f"scan-{name}"]
        scored[scan_level.GIVEN] = of_scans
    weights = test.healthy_weights, test.weights[:, anomalous]
    for quantity, own in scored.items():
        found, draws = scan_level.separation(normal[quantity], own[anomalous], *weights)
        yield "scan", ({"prevalence": found.pop("prevalence")}, {})
        yield "scan", _named((found, draws), f"_{quantity}")


def in_brain(maps: ScanMaps, thresholds: ByRate, weights: np.ndarray) -> Measures:
    """Return the voxel metrics, and draws of AUPRC and AUROC, over the brain: `<metric>_brain`."""

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return ((heatmap[brain], mask[brain]) for heatmap, brain, mask in maps())

    points = metrics.operating_points(chunks, tuple(thresholds.values()))
    rows = (
        (values[None], labels[None], np.array([at])) for at, (values, labels) in enumerate(chunks())
    )
    counts = bootstrap.count_by_scan(rows, bootstrap.bin_edges(points, BINS), weights.shape[1])
    values = metrics.metrics_at(points)
    for rate, threshold in thresholds.items():
        above = metrics.metrics_above(points, threshold)
        values |= {f"{metric}@{rate}": value for metric, value in above.items()}
    return _named((values, bootstrap.weighted_metrics(counts, weights)), "_brain")


def _named(measures: Measures, suffix: str) -> Measures:
    """Return measures with a suffix to each name."""
    values, draws = measures
    return (
        {f"{name}{suffix}": value for name, value in values.items()},
        {f"{name}{suffix}": drawn for name, drawn in draws.items()},
    )
