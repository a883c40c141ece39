"""Check every scan of a study and cut it into slices, a store for each data set.

    python -m experiments.preprocess --config=configs/phantom.py --workdir=runs/phantom

Reads the data sets `config.data.sets`; writes `<workdir>/slices/<name>` for each. Stores that were
made from the same scans with the same settings are kept.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from cradl_jax.data.checks import scan_faults
from cradl_jax.data.layouts import Scan, list_scans, raise_faults
from cradl_jax.data.slices import SliceStore, anomalous, build_store, find_store, open_store
from cradl_jax.data.splits import assign_splits, subject_faults
from cradl_jax.errors import InputError
from experiments import app

HEALTHY = "healthy"
"""The data set that models and densities learn from; every other one is anomalous."""


def main(config: ConfigDict, workdir: Path) -> None:
    """Build the slice store of every data set, after all scans were found to be sound."""
    workers = config.data.workers or os.cpu_count() or 1
    data_sets, faults = find_data_sets(config, workdir)
    faults += missing_splits(data_sets)
    raise_faults(faults + faults_of(config, workdir, data_sets, workers))
    for name, scans in data_sets.items():
        store = build_store(
            store_path(workdir, name), scans, **slicing(config, name), workers=workers
        )
        for split in dict.fromkeys(store.splits):
            rows = store.rows(split)
            print(
                f"{name} {split}: {len(set(store.scans[rows]))} scans, {len(rows)} slices, "
                f"{anomalous(store.masks[rows]).mean():.1%} of them anomalous"
            )


def stores(config: ConfigDict, workdir: Path) -> dict[str, SliceStore]:
    """The slice store of every data set, the healthy one first.

    Raises:
        InputError: If one is missing or was made with other settings.
    """
    opened = {}
    for name in names(config):
        try:
            opened[name] = open_store(store_path(workdir, name))
        except InputError as fault:
            raise InputError(f"{fault}: run python -m experiments.preprocess first") from fault
        found, expected = opened[name].manifest["settings"], slicing(config, name)
        if found != expected:
            raise InputError(
                f"{opened[name].path}: expected slices made with {expected}, found {found}; run "
                "python -m experiments.preprocess again, or choose another working directory"
            )
    return opened


def names(config: ConfigDict) -> list[str]:
    """The names of the data sets, the healthy one first."""
    if HEALTHY not in config.data.sets:
        raise InputError(
            f"config.data.sets: expected a data set '{HEALTHY}', found {list(config.data.sets)}; "
            "name the data set to train on so"
        )
    return sorted(config.data.sets, key=lambda name: (name != HEALTHY, name))


def store_path(workdir: Path, name: str) -> Path:
    """The folder of a data set's slice store."""
    return workdir / "slices" / name


def slicing(config: ConfigDict, name: str) -> dict:
    """How the scans of a data set are sliced, see `slice_geometry`."""
    return {
        "size": config.data.size,
        "offset": config.data.sets[name].offset,
        "slice_spacing_mm": config.data.slice_spacing_mm,
    }


def find_data_sets(config: ConfigDict, workdir: Path) -> tuple[dict[str, list[Scan]], list[str]]:
    """The scans of every data set, each with its split, and what is wrong with the lists."""
    root = Path(config.data.root or workdir / "data").expanduser()
    data_sets, faults = {}, []
    for name in names(config):
        settings = config.data.sets[name]
        path = root / settings.path
        if not root.is_dir() and not Path(settings.path).is_absolute():
            raise InputError(
                f"{root}: expected the folder of the data sets, found none; make the phantom with "
                "python -m experiments.phantom, or name the folder of your own scans with "
                "--config.data.root=... or $CRADL_DATA"
            )
        try:
            data_sets[name], found = list_scans(path, settings.layout)
            if not found:
                counts = settings.get("splits") or {}
                data_sets[name] = assign_splits(data_sets[name], counts, config.data.seed)
        except InputError as fault:
            found = [f"data set '{name}': {fault}"]
        faults += found
    return data_sets, faults


def missing_splits(data_sets: dict[str, list[Scan]]) -> list[str]:
    """The splits that a study needs and a data set lacks."""
    faults = []
    for name, scans in data_sets.items():
        needed = ("train", "val") if name == HEALTHY else ("val", "test")
        found = {scan.split for scan in scans}
        if scans and not found.issuperset(needed):
            faults.append(
                f"data set '{name}': expected scans in the splits {' and '.join(needed)}, found "
                f"{', '.join(map(str, sorted(found, key=str)))}; models and scores are chosen on "
                "val, so move some scans there"
            )
    return faults


def faults_of(
    config: ConfigDict, workdir: Path, data_sets: dict[str, list[Scan]], workers: int
) -> list[str]:
    """All that is wrong with the scans; those whose slices are there already are not read again."""
    faults = subject_faults(data_sets)
    for name, scans in data_sets.items():
        how = slicing(config, name)
        if find_store(store_path(workdir, name), scans, **how) is None:
            annotated = "some" if config.data.sets[name].layout == "csv" else "all"
            faults += scan_faults(
                scans,
                workers,
                annotated="none" if name == HEALTHY else annotated,
                offset=how["offset"],
                slice_spacing_mm=how["slice_spacing_mm"],
                label=f"checking {name}",
            )
    return faults


if __name__ == "__main__":
    app.run(main)
