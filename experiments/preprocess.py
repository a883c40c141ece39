"""Check every scan of a study and cut it into slices, a store for each data set.

    python -m experiments.preprocess --config=configs/phantom.py [--workdir=runs/phantom]

Reads the data sets `config.data.sets`; writes for each `<workdir>/splits/<name>.csv`, which subject
is in which split, and `<workdir>/slices/<name>`. Stores that were made from the same scans with the
same settings are kept. A list of splits, of an earlier run or another group, is used again by
`--config.data.sets.<name>.split_file=list.csv`. A killed command goes on with the scan it was at.

With --shard=3/8 it slices the third, eleventh, ... scan of each data set, for job arrays; whichever
of the eight ends last completes the stores, as does the command without --shard after them.
"""

import os
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from cradl_jax.data.building import build_store
from cradl_jax.data.checks import scan_faults
from cradl_jax.data.journal import Shard, sliced
from cradl_jax.data.layouts import HELD_OUT, Scan, list_scans, raise_faults
from cradl_jax.data.slices import SliceStore, anomalous, find_store, open_store
from cradl_jax.data.splits import (
    assign_splits,
    listed_splits,
    source_faults,
    subject_faults,
    write_splits,
)
from cradl_jax.errors import InputError
from cradl_jax.integrity import seal
from experiments import app
from experiments.alone import alone

HEALTHY = "healthy"
"""The data set that models and densities learn from; every other one is anomalous."""


def main(config: ConfigDict, workdir: Path, shard: Shard | None = None) -> None:
    """Build the slice store of every data set, after all scans were found to be sound.

    Of a shard only its share of the scans is read.
    """
    workers = config.data.workers or os.cpu_count() or 1
    found, faults = find_data_sets(config, workdir)
    data_sets = {name: used(scans) for name, scans in found.items() if scans}
    faults += missing_splits(data_sets) + leaks(config, found)
    raise_faults(faults + faults_of(config, workdir, data_sets, workers, shard))
    with alone(workdir, "lists of splits"):
        for name, scans in found.items():
            write_splits(workdir / "splits" / f"{name}.csv", scans)
        seal(workdir / "splits")
    with alone(workdir, "preprocessing" if shard is None else f"preprocessing, shard {shard}"):
        for name, scans in data_sets.items():
            how = slicing(config, name)
            print_store(
                name,
                build_store(store_path(workdir, name), scans, **how, workers=workers, shard=shard),
            )


def print_store(name: str, store: SliceStore | None) -> None:
    """Say what is in a store, or that other shards have to end."""
    if store is None:
        print(f"{name}: this shard is done; the last one completes the store")
        return
    for split in dict.fromkeys(store.splits):
        rows = store.rows(split)
        print(
            f"{name} {split}: {len(set(store.scans[rows]))} scans, {len(rows)} slices, "
            f"{anomalous(store.masks[rows]).mean():.1%} of them anomalous"
        )


def shard_named(text: str | None) -> Shard | None:
    """The shard that --shard names, such as 3/8; None for the whole.

    Raises:
        InputError: it is no number of 1 to the count, and the count.
    """
    if text is None:
        return None
    number, _, count = text.partition("/")
    sound = all(part.isascii() and part.isdigit() for part in (number, count))
    if not sound or not 1 <= int(number) <= int(count):
        raise InputError(
            f"--shard: expected i/n with i from 1 to n, such as 3/8, found {text!r}; number the "
            "tasks of a job array from 1"
        )
    return Shard(int(number), int(count))


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
    for name, settings in config.data.sets.items():
        source = settings.get("made_from")
        if source == name or (source and source not in config.data.sets):
            raise InputError(
                f"config.data.sets.{name}.made_from: expected another data set of "
                f"{list(config.data.sets)}, found '{source}'; correct the name"
            )
    return sorted(config.data.sets, key=lambda name: (name != HEALTHY, name))


def store_path(workdir: Path, name: str) -> Path:
    """The folder of a data set's slice store."""
    return workdir / "slices" / name


def slicing(config: ConfigDict, name: str) -> dict:
    """How the scans of a data set are sliced, see `slice_geometry`."""
    settings = config.data.sets[name]
    return {
        "size": config.data.size,
        "offset": settings.offset,
        "slice_spacing_mm": settings.get("slice_spacing_mm") or config.data.slice_spacing_mm,
    }


def data_root(config: ConfigDict, workdir: Path) -> Path:
    """The folder that the paths of data sets start from."""
    return Path(config.data.root or workdir / "data").expanduser()


def find_data_sets(config: ConfigDict, workdir: Path) -> tuple[dict[str, list[Scan]], list[str]]:
    """The scans of every data set, each with its split, and what is wrong with the lists."""
    data_sets, faults = {}, []
    for name in names(config):
        data_sets[name], found = find_data_set(config, workdir, name)
        faults += found
    return data_sets, faults


def find_data_set(config: ConfigDict, workdir: Path, name: str) -> tuple[list[Scan], list[str]]:
    """The scans of a data set, each with its split, and what is wrong with the list of them.

    Raises:
        InputError: If the folder of all data sets is missing.
    """
    root, settings = data_root(config, workdir), config.data.sets[name]
    if not root.is_dir() and not Path(settings.path).is_absolute():
        raise InputError(
            f"{root}: expected the folder of the data sets, found none; make the phantom with "
            "python -m experiments.phantom, or name the folder of your own scans with "
            "--config.data.root=... or $CRADL_DATA"
        )
    path, scans = root / settings.path, []
    try:
        scans, faults = list_scans(path, settings.layout)
        if not faults:
            scans, faults = with_splits(config, name, scans)
    except InputError as fault:
        hint = ""
        if settings.get("made_from") and not path.exists():
            hint = "; make it with python -m experiments.synthesize"
        faults = [f"data set '{name}': {fault}{hint}"]
    return scans, faults


def with_splits(config: ConfigDict, name: str, scans: list[Scan]) -> tuple[list[Scan], list[str]]:
    """The scans of a data set with their splits: listed in its split_file, or else drawn."""
    settings = config.data.sets[name]
    if settings.get("split_file"):
        return listed_splits(scans, Path(settings.split_file).expanduser())
    return assign_splits(scans, settings.get("splits") or {}, config.data.seed), []


def used(scans: list[Scan]) -> list[Scan]:
    """The scans that are not held out."""
    return [scan for scan in scans if scan.split != HELD_OUT]


def leaks(config: ConfigDict, found: dict[str, list[Scan]]) -> list[str]:
    """What would leak from one split, or from the healthy data set, into another."""
    faults, sound = [], {}
    for name, scans in found.items():
        source = config.data.sets[name].get("made_from")
        leaking = source_faults(name, used(scans), source, found[source]) if source else []
        if not leaking:
            sound[name] = used(scans)
        faults += leaking
    return faults + subject_faults(sound)


def missing_splits(data_sets: dict[str, list[Scan]]) -> list[str]:
    """The splits that a study needs and a data set lacks."""
    faults = []
    for name, scans in data_sets.items():
        needed = ("train", "val") if name == HEALTHY else ("val", "test")
        splits = {scan.split for scan in scans}
        if not splits.issuperset(needed):
            found = ", ".join(sorted(map(str, splits))) or "none"
            faults.append(
                f"data set '{name}': expected scans in the splits {' and '.join(needed)}, found "
                f"{found}; models and scores are chosen on val, so move some scans there"
            )
    return faults


def faults_of(
    config: ConfigDict,
    workdir: Path,
    data_sets: dict[str, list[Scan]],
    workers: int,
    shard: Shard | None = None,
) -> list[str]:
    """All that is wrong with the scans; those whose slices are there already are not read again."""
    faults = []
    for name, scans in data_sets.items():
        how, path = slicing(config, name), store_path(workdir, name)
        if scans and find_store(path, scans, **how) is None:
            done = sliced(path, scans, how)
            numbers = (shard or Shard()).share(len(scans))
            annotated = "some" if config.data.sets[name].layout == "csv" else "all"
            faults += scan_faults(
                scans,
                workers,
                annotated="none" if name == HEALTHY else annotated,
                offset=how["offset"],
                slice_spacing_mm=how["slice_spacing_mm"],
                label=f"checking {name}",
                read=[scans[number] for number in numbers if number not in done],
            )
    return faults


if __name__ == "__main__":
    SHARD = flags.DEFINE_string("shard", None, "i/n: slice the i-th of n shares of the scans.")
    app.run(lambda config, workdir: main(config, workdir, shard_named(SHARD.value)))
