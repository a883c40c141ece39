"""Compare a study's figures with those of an earlier one, each within the tolerance kept there.

    python -m tests.helpers.golden runs/ci tests/golden/smoke.csv           # compare: status 0 or 1
    python -m tests.helpers.golden runs/ci tests/golden/smoke.csv --renew   # keep these

`smoke.csv` is of the command that `.ci/run` runs; `tiny.csv` of the study in
tests/studies/test_end_to_end.py, which renews it by `RENEW_GOLDEN=1 python -m pytest -n 0
tests/studies/test_end_to_end.py -k golden`. Renew them only after a change that is meant to change
figures, and say in the commit which and why.

Metrics of whole scans and of lesions are left out: they are ranks of two scans and two lesions.
Slices and prevalences are integers divided by integers and may move by a voxel at a rounding; the
trivial baselines are means over voxels. Scores of networks move with the order of sums, which
another number of devices, another CPU or another version changes. Between one and two devices the
smoke study's slices and baselines did not move at all, the terms of the VAEs' losses by 0.008 at
most, densities of one to eight Gaussians by 0.017, and flows, which 60 epochs of training make
sensitive, by 0.061 on their two validation scans (median over all 0.0002). On another machine
densities of Gaussians are 0.051 away from what is kept, flows 0.129, and the baseline of equalized
intensity 0.0026. The tolerances leave room for that.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from cradl_jax.data.slices.store import open_store
from cradl_jax.evaluation.results import LEVELS, Result, read_csv
from cradl_jax.names import BASELINE, is_density

TOLERANCES = {"count": 0.0, "mean": 1e-4, "share": 2e-4}  # of the slices
RESULTS = {"prevalence": 2e-3, "baseline": 4e-3, "terms": 0.02, "mixtures": 0.08, "flows": 0.15}
METRICS = ("auprc", "auroc", "auprc_brain", "auroc_brain")


def figures(workdir: Path) -> dict[str, tuple[float, float]]:
    """Return the figures of a study by name, with their tolerances."""
    found = {}
    for place in sorted((workdir / "slices").iterdir()):
        store = open_store(place)
        rows = np.flatnonzero(store.scans >= 0)
        if place.name == "healthy":  # apart from those that nothing learns from
            found["healthy test slices"] = len(store.rows("test")), TOLERANCES["count"]
            rows = rows[store.splits[rows] != "test"]
        found[f"{place.name} slices"] = len(rows), TOLERANCES["count"]
        mean = float(np.abs(store.images[rows]).mean(dtype=float))
        masks = float(store.masks[rows].mean())
        found[f"{place.name} mean absolute intensity"] = mean, TOLERANCES["mean"]
        found[f"{place.name} share of anomalous voxels"] = masks, TOLERANCES["share"]
    for row in read_csv(workdir / "results.csv"):
        name = " ".join(map(str, row[:-1]))
        if row.level not in LEVELS:  # ranks of a few scans, which a rounding turns over
            continue
        if row.metric == "prevalence":
            found[name] = row.value, RESULTS["prevalence"]
        elif row.metric in METRICS:
            found[name] = row.value, RESULTS[kind(row)]
    return found


def kind(row: Result) -> str:
    """Return which of the kinds in `RESULTS` a score is."""
    if row.method == BASELINE:
        return "baseline"
    if not is_density(row.score):
        return "terms"
    return "flows" if row.score == "flow" else "mixtures"


def write(path: Path, found: dict[str, tuple[float, float]]) -> None:
    """Write figures with their tolerances."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["figure", "value", "tolerance"])
        writer.writerows([name, f"{value:.6g}", limit] for name, (value, limit) in found.items())


def differences(path: Path, found: dict[str, tuple[float, float]]) -> list[str]:
    """Name the figures that differ from those that were kept by more than their tolerance."""
    with path.open(newline="") as file:
        kept = {row["figure"]: row for row in csv.DictReader(file)}
    differing = [f"{name}: only in one of both" for name in kept.keys() ^ found.keys()]
    for name in kept.keys() & found.keys():
        expected, limit = float(kept[name]["value"]), float(kept[name]["tolerance"])
        value = found[name][0]
        if not abs(value - expected) <= limit + 1e-6:
            differing.append(f"{name}: expected {expected:.4f} within {limit}, found {value:.4f}")
    return sorted(differing)


def main(workdir: str, path: str, *options: str) -> int:
    """Compare, or write with --renew; return the exit status."""
    found = figures(Path(workdir))
    if options == ("--renew",):
        write(Path(path), found)
        return 0
    differing = differences(Path(path), found)
    print("\n".join(differing) or f"{workdir}: {len(found)} figures as in {path}")
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
