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

from cradl_jax.data.scans.checks import scan_faults
from cradl_jax.data.scans.layouts import Scan, raise_faults
from cradl_jax.data.scans.splits import (
    write_splits,
)
from cradl_jax.data.slices.building import build_store
from cradl_jax.data.slices.journal import Shard, sliced
from cradl_jax.data.slices.store import SliceStore, anomalous, find_store
from cradl_jax.errors import InputError
from cradl_jax.storage.integrity import write_checksums
from experiments.cli.locking import exclusive
from experiments.study import app
from experiments.study.data_sets import (
    HEALTHY,
    find_data_sets,
    leaks,
    missing_splits,
    slicing,
    store_path,
    used,
)


def main(config: ConfigDict, workdir: Path, shard: Shard | None = None) -> None:
    """Build the slice store of every data set, after all scans were found to be sound.

    Of a shard only its share of the scans is read.
    """
    workers = config.data.workers or os.cpu_count() or 1
    found, faults = find_data_sets(config, workdir)
    data_sets = {name: used(scans) for name, scans in found.items() if scans}
    faults += missing_splits(data_sets) + leaks(config, found)
    raise_faults(faults + faults_of(config, workdir, data_sets, workers, shard))
    with exclusive("lists of splits", workdir):
        for name, scans in found.items():
            write_splits(workdir / "splits" / f"{name}.csv", scans)
        write_checksums(workdir / "splits")
    with exclusive("preprocessing" if shard is None else f"preprocessing, shard {shard}", workdir):
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
