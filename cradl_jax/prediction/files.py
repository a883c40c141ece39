"""Write what a model finds in a scan: maps, table of slices, page and summary."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nibabel.affines import apply_affine

from cradl_jax.data.scans.headers import Origin
from cradl_jax.data.scans.volumes import Volume
from cradl_jax.data.slices.native import to_scan_grid, write_map
from cradl_jax.evaluation import masks, thresholds
from cradl_jax.evaluation.masks import HealthyMap
from cradl_jax.prediction.findings import Finding, Findings
from cradl_jax.prediction.inputs import LABELS, MAP, MASK, InputScan
from cradl_jax.prediction.scan import Prediction
from cradl_jax.storage.files import replacing, require_space, write_json, write_text

NOTICE = "For research only. Not a medical device."
TABLE, FOUND, PAGE, SUMMARY = "_slices.csv", "_findings.csv", ".html", "_summary.json"
FINDING_COLUMNS = (
    *("number", "volume_ml", "mean", "peak", "mass", "per_healthy_scan"),
    *(f"{of}_{axis}_mm" for of in ("center", "peak", "extent") for axis in "xyz"),
)


class OperatingPoint(NamedTuple):
    """The thresholds in use, and what healthy validation scans have above them.

    Attributes:
        healthy: the slice score on healthy validation scans.
        rate: share of their slices above the threshold of the score, one of `thresholds.RATES`; at
            most as many findings a healthy scan make a scan anomalous.
        healthy_map: the map on healthy validation scans.
        mask: threshold of the map, one of `masks.MASKS`.
        least_ml: volume of the smallest finding.
        about: what made the scores, plain values for the summary.
    """

    healthy: thresholds.HealthyScores
    rate: str
    healthy_map: HealthyMap
    mask: str
    least_ml: float
    about: Mapping[str, Any]

    @property
    def slice_threshold(self) -> float:
        """Score above which a slice is called anomalous."""
        return self.healthy.thresholds[self.rate]

    @property
    def voxel_threshold(self) -> float:
        """Value of the map above which a voxel is called anomalous."""
        return self.healthy_map.masks[self.mask].threshold


class ScanResult(NamedTuple):
    """The prediction of a scan: scores, anomaly map, findings, and warnings.

    Attributes:
        scan: its name and file.
        volume: its voxels along R, A and S.
        prediction: scores and maps of its slices, and the map on `volume`'s voxels.
        operating_point: the thresholds, and the scores of healthy scans.
        found: where the map lies above its threshold, component by component.
        warnings: sentences on what makes the scan unlike the training scans.
    """

    scan: InputScan
    volume: Volume
    prediction: Prediction
    operating_point: OperatingPoint
    found: Findings
    warnings: list[str]

    @property
    def scores(self) -> np.ndarray:
        """The slices' scores [n], from the lowest slice to the highest."""
        return self.prediction.scores

    @property
    def anomaly_map(self) -> np.ndarray:
        """The map in the shape and order of axes of the scan's file, float32."""
        return to_scan_grid(self.prediction.anomaly_map, self.volume.origin)

    @property
    def mask(self) -> np.ndarray:
        """Where there are findings, bool, as `anomaly_map`."""
        return to_scan_grid(self.found.labels > 0, self.volume.origin)

    @property
    def findings(self) -> Sequence[Finding]:
        """Connected parts of the scan where the map is above its threshold, heaviest first."""
        return self.found.each

    @property
    def anomalous(self) -> bool:
        """Whether there is a finding that healthy scans have no more often than at the rate."""
        limit = float(self.operating_point.rate)
        return any(finding.per_healthy_scan <= limit for finding in self.findings)

    def save(self, out: Path | str) -> dict[str, Any]:
        """Write maps, tables, page and summary to a folder; return the summary.

        The summary is written last. `<name>_anomaly.nii.gz`, the map on the scan's own voxels,
        float32, in the unit of the score; `<name>_anomaly_mask.nii.gz`, where there are findings,
        and `<name>_findings.nii.gz`, the number of each; `<name>_findings.csv`;
        `<name>_slices.csv`; `<name>.html`; `<name>_summary.json`.
        """
        folder, name = Path(out).expanduser(), self.scan.name
        heat, labels = self.prediction.anomaly_map, self.found.labels
        require_space(folder, 3 * heat.nbytes, f"the maps of {name}")
        content = summary(self)
        write_map(folder / f"{name}{MAP}", heat, self.volume.origin)
        write_map(folder / f"{name}{MASK}", labels > 0, self.volume.origin)
        write_map(folder / f"{name}{LABELS}", labels, self.volume.origin)
        write_table(folder / f"{name}{TABLE}", slice_rows(self))
        write_table(folder / f"{name}{FOUND}", finding_rows(self), FINDING_COLUMNS)
        write_text(folder / f"{name}{PAGE}", _page(self, content))
        write_json(folder / f"{name}{SUMMARY}", content)
        return content


def remove(folder: Path, scan: InputScan) -> None:
    """Remove what an earlier `ScanResult.save` wrote of a scan, the summary first."""
    for ending in (SUMMARY, PAGE, FOUND, TABLE, LABELS, MASK, MAP):
        (folder / f"{scan.name}{ending}").unlink(missing_ok=True)


def summary(result: ScanResult) -> dict[str, Any]:
    """Summarize the scan as a whole in plain values."""
    scan, point, scores = result.scan, result.operating_point, result.scores
    healthy = point.healthy
    quantities = thresholds.scan_quantities(scores, healthy.thresholds)
    return {
        "scan": scan.name,
        "image": str(scan.image),
        "notice": NOTICE,
        "anomalous": result.anomalous,
        "findings": [finding._asdict() for finding in result.findings],
        "scan_scores": {
            name: {"value": value, "percentile": thresholds.scan_percentile(healthy, name, value)}
            for name, value in quantities.items()
        },
        "slices": len(scores),
        "slices_above": int((scores > point.slice_threshold).sum()),
        "milliliters_above": math.fsum(finding.volume_ml for finding in result.findings),
        "false_positive_rate": float(point.rate),
        "mask": point.mask,
        "smallest_ml": point.least_ml,
        "thresholds": {"slice": point.slice_threshold, "voxel": point.voxel_threshold},
        "healthy_validation": {"scans": len(healthy.scans["max"]), "slices": healthy.n_slices},
        **point.about,
        "warnings": list(result.warnings),
    }


def slice_rows(result: ScanResult) -> list[dict[str, Any]]:
    """Return a row for each slice that shows brain, from the lowest to the highest.

    `index` is the number, from 0, of the slice (or of the nearest one, where the stack was
    resampled) along the axis of the scan's file that is closest to bottom-top.
    """
    point, prediction, scores = result.operating_point, result.prediction, result.scores
    percentiles = thresholds.slice_percentiles(point.healthy, scores, prediction.position)
    columns = {
        "index": file_indices(result.volume.origin, prediction.centers_mm),
        "position_mm": np.round(prediction.heights_mm, 3),
        "height_in_brain": np.round(prediction.position.astype(float), 4),
        "score": scores,
        "above_threshold": (scores > point.slice_threshold).astype(int),
        "percentile": np.round(percentiles, 2),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def finding_rows(result: ScanResult) -> list[dict[str, Any]]:
    """Return a row for each finding, the heaviest first."""
    cells = (
        [cell for value in finding for cell in (value if isinstance(value, tuple) else [value])]
        for finding in result.findings
    )
    return [dict(zip(FINDING_COLUMNS, row, strict=True)) for row in cells]


def file_indices(origin: Origin, centers_mm: np.ndarray) -> np.ndarray:
    """Return the number [n] of each slice along the file's axis that is closest to bottom-top."""
    axis = int(np.flatnonzero(origin.orientation[:, 0] == 2)[0])
    layer = apply_affine(np.linalg.inv(origin.affine), centers_mm)[:, axis]
    nearest = np.rint(np.round(layer, 6))  # what lies in the middle must not depend on rounding
    return np.clip(nearest, 0, origin.shape[axis] - 1).astype(int)


def overview_row(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scan's row in the table of all scans, made from its summary."""
    row = {"scan": content["scan"], "image": content["image"], "error": ""}
    row |= {"anomalous": int(content["anomalous"]), "findings": len(content["findings"])}
    for name, score in content["scan_scores"].items():
        row |= {name: score["value"], f"{name}_percentile": score["percentile"]}
    for name in ("slices", "slices_above", "milliliters_above"):
        row[name] = content[name]
    return row | {"warnings": " ".join(content["warnings"])}


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write a CSV file with these columns and those of all rows; a missing cell is empty."""
    rows = list(rows)
    columns = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    with replacing(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _page(result: ScanResult, content: Mapping[str, Any]) -> str:
    """Return the page of a scan with this summary."""
    from cradl_jax.prediction.viewer import Profile, scan_page  # loading a run draws nothing

    point, prediction = result.operating_point, result.prediction
    band = thresholds.slice_range(point.healthy, prediction.position)
    profile = Profile(prediction.heights_mm, prediction.scores, point.slice_threshold, band)
    return scan_page(
        content["scan"],
        result.volume,
        prediction.anomaly_map,
        profile,
        result.findings,
        threshold=point.voxel_threshold,
        summary=_in_words(content),
        warnings=result.warnings,
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
        "anomalous": _verdict(content),
        "method": f"{content['method']}, slice score {content['score']}, map {content['heatmap']}",
        **shown,
        "slices above the threshold": f"{content['slices_above']} of {content['slices']}",
        "volume of the findings": f"{content['milliliters_above']:.1f} ml",
        "threshold of slices": f"{limits['slice']:.4g}; {rate} of healthy validation slices lie "
        "above",
        "threshold of the map": f"{limits['voxel']:.4g}; {masks.MEANING[content['mask']]}",
        "model": content["model"],
        "file": content["image"],
    }


def _verdict(content: Mapping[str, Any]) -> str:
    """Return whether the scan is called anomalous, and why, in words."""
    healthy = f"{content['healthy_validation']['scans']} healthy validation scans"
    limit, findings = content["false_positive_rate"], content["findings"]
    rare = sum(finding["per_healthy_scan"] <= limit for finding in findings)
    if rare:
        return (
            f"yes: of {len(findings)} findings, {rare} so heavy that {healthy} have at most "
            f"{limit:g} like it on average"
        )
    if findings:
        return f"no: {healthy} have findings as heavy, more than {limit:g} a scan"
    return "no: there is no finding"
