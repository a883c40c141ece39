"""Write what a model finds in a scan: maps, table of slices, page and summary."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cradl_jax.data.scans.headers import Origin
from cradl_jax.data.scans.volumes import Volume
from cradl_jax.data.slices.native import write_map
from cradl_jax.evaluation import thresholds
from cradl_jax.prediction.inputs import MAP, MASK, InputScan
from cradl_jax.prediction.scan import Prediction
from cradl_jax.storage.files import replacing, require_space, write_json, write_text

NOTICE = "For research only. Not a medical device."
TABLE, PAGE, SUMMARY = "_slices.csv", ".html", "_summary.json"


class OperatingPoint(NamedTuple):
    """The false-positive rate in use, and the thresholds and percentiles at it.

    Attributes:
        healthy: the slice score on healthy validation scans.
        rate: false-positive rate of the thresholds, one of `thresholds.RATES`.
        voxel_threshold: heatmap value above which a voxel is called anomalous.
        about: what made the scores, plain values for the summary.
    """

    healthy: thresholds.HealthyScores
    rate: str
    voxel_threshold: float
    about: Mapping[str, Any]

    @property
    def slice_threshold(self) -> float:
        """Score above which a slice is called anomalous."""
        return self.healthy.thresholds[self.rate]


def remove(folder: Path, scan: InputScan) -> None:
    """Remove what an earlier call of `write_files` wrote of a scan, the summary first."""
    for ending in (SUMMARY, PAGE, TABLE, MASK, MAP):
        (folder / f"{scan.name}{ending}").unlink(missing_ok=True)


def write_files(
    folder: Path,
    scan: InputScan,
    volume: Volume,
    prediction: Prediction,
    point: OperatingPoint,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Write all files of a scan, the summary last.

    `<name>_anomaly.nii.gz`, the map on the scan's own voxels, float32, in the unit of the score;
    `<name>_anomaly_mask.nii.gz`, where it lies above the threshold; `<name>_slices.csv`;
    `<name>.html`; `<name>_summary.json`.

    Returns:
        The summary.
    """
    require_space(folder, 2 * prediction.anomaly_map.nbytes, f"the maps of {scan.name}")
    above = prediction.anomaly_map > point.voxel_threshold
    content = summary(scan, volume, prediction, point, above) | {"warnings": list(warnings)}
    write_map(folder / f"{scan.name}{MAP}", prediction.anomaly_map, volume.origin)
    write_map(folder / f"{scan.name}{MASK}", above, volume.origin)
    write_table(folder / f"{scan.name}{TABLE}", slice_rows(volume.origin, prediction, point))
    write_text(folder / f"{scan.name}{PAGE}", _page(volume, prediction, point, content))
    write_json(folder / f"{scan.name}{SUMMARY}", content)
    return content


def summary(
    scan: InputScan,
    volume: Volume,
    prediction: Prediction,
    point: OperatingPoint,
    above: np.ndarray,
) -> dict[str, Any]:
    """Summarize the scan as a whole in plain values; `above` [X, Y, Z] bool marks voxels."""
    healthy = point.healthy
    quantities = thresholds.scan_quantities(prediction.scores, healthy.thresholds)
    milliliters = np.count_nonzero(above) * float(np.prod(volume.spacing_mm)) / 1000
    return {
        "scan": scan.name,
        "image": str(scan.image),
        "notice": NOTICE,
        "scan_scores": {
            name: {"value": value, "percentile": thresholds.scan_percentile(healthy, name, value)}
            for name, value in quantities.items()
        },
        "slices": len(prediction.scores),
        "slices_above": int((prediction.scores > point.slice_threshold).sum()),
        "milliliters_above": milliliters,
        "false_positive_rate": float(point.rate),
        "thresholds": {"slice": point.slice_threshold, "voxel": point.voxel_threshold},
        "healthy_validation": {"scans": len(healthy.scans["max"]), "slices": healthy.n_slices},
        **point.about,
    }


def slice_rows(
    origin: Origin, prediction: Prediction, point: OperatingPoint
) -> list[dict[str, Any]]:
    """Return a row for each slice that shows brain, from the lowest to the highest.

    `index` is the number, from 0, of the slice (or of the nearest one, where the stack was
    resampled) along the axis of the scan's file that is closest to bottom-top.
    """
    scores = prediction.scores
    percentiles = thresholds.slice_percentiles(point.healthy, scores, prediction.position)
    columns = {
        "index": file_indices(origin, prediction),
        "position_mm": np.round(prediction.heights_mm, 3),
        "height_in_brain": np.round(prediction.position.astype(float), 4),
        "score": scores,
        "above_threshold": (scores > point.slice_threshold).astype(int),
        "percentile": np.round(percentiles, 2),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def file_indices(origin: Origin, prediction: Prediction) -> np.ndarray:
    """Return the number [n] of each slice along the file's axis that is closest to bottom-top."""
    geometry, depth = prediction.geometry, prediction.geometry.shape[2]
    number = prediction.number - (geometry.n_slices - 1) / 2
    layer = (depth - 1) / 2 + number * geometry.slice_mm / geometry.spacing_mm[2]
    index = np.clip(np.rint(layer), 0, depth - 1).astype(int)
    ((_, direction),) = origin.orientation[origin.orientation[:, 0] == 2]
    return index if direction > 0 else depth - 1 - index


def overview_row(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scan's row in the table of all scans, made from its summary."""
    row = {"scan": content["scan"], "image": content["image"], "error": ""}
    for name, score in content["scan_scores"].items():
        row |= {name: score["value"], f"{name}_percentile": score["percentile"]}
    for name in ("slices", "slices_above", "milliliters_above"):
        row[name] = content[name]
    return row | {"warnings": " ".join(content["warnings"])}


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file with the columns of all rows; a missing cell is empty."""
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _page(
    volume: Volume, prediction: Prediction, point: OperatingPoint, content: Mapping[str, Any]
) -> str:
    """Return the page of a scan with this summary."""
    from cradl_jax.prediction.viewer import Profile, scan_page  # loading a run draws nothing

    band = thresholds.slice_range(point.healthy, prediction.position)
    profile = Profile(prediction.heights_mm, prediction.scores, point.slice_threshold, band)
    return scan_page(
        content["scan"],
        volume,
        prediction.anomaly_map,
        profile,
        threshold=point.voxel_threshold,
        summary=_in_words(content),
        warnings=content["warnings"],
    )


def _in_words(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the summary for people: names and values of a table."""
    n, limits = content["healthy_validation"]["scans"], content["thresholds"]
    rate = f"{content['false_positive_rate']:.0%}"
    words = {"max": "highest slice score", "mean": "mean", "p95": "95th percentile"}
    shown = {
        words[name]: f"{score['value']:.4g} (percentile {score['percentile']:.0f} of {n} healthy "
        "validation scans)"
        for name, score in content["scan_scores"].items()
        if name in words
    }
    return {
        "method": f"{content['method']}, slice score {content['score']}, map {content['heatmap']}",
        **shown,
        "slices above the threshold": f"{content['slices_above']} of {content['slices']}",
        "brain above the map's threshold": f"{content['milliliters_above']:.1f} ml",
        "thresholds": f"{rate} of healthy validation slices lie above {limits['slice']:.4g}, "
        f"{rate} of their pixels above {limits['voxel']:.4g}",
        "model": content["model"],
        "file": content["image"],
    }
