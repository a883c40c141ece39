"""Slice the scans of a study: check them, describe them, and build a store for each data set."""

import os
import sys
from pathlib import Path

from ml_collections import ConfigDict

from cradl_jax.data.scans.checks import Annotated, missing_masks, scan_faults
from cradl_jax.data.scans.layouts import Scan, raise_faults
from cradl_jax.data.scans.splits import write_splits
from cradl_jax.data.slices.building import complete_store, plan_job, slice_scans
from cradl_jax.data.slices.journal import Shard, sliced
from cradl_jax.data.slices.store import SliceStore, anomalous, find_store, open_store
from cradl_jax.errors import InputError
from cradl_jax.storage.integrity import write_checksums
from experiments.cli.locking import exclusive
from experiments.study import screening
from experiments.study.data_sets import (
    HEALTHY,
    contrast_warning,
    find_all,
    other_slicing,
    slicing,
    store_path,
    used,
)


def preprocess(config: ConfigDict, workdir: Path, shard: Shard | None = None) -> None:
    """Build the slice store of every data set, each scan being read once.

    All faults of all data sets are listed at once, and then no store is completed. Of a shard only
    its share of the scans is read.
    """
    workers = config.data.workers or os.cpu_count() or 1
    found, faults = find_all(config, workdir)
    data_sets = {name: used(scans) for name, scans in found.items() if scans}
    stores = {
        name: find_store(store_path(workdir, name), scans, **slicing(config, name))
        for name, scans in data_sets.items()
    }
    unfinished = {n: scans for n, scans in data_sets.items() if scans and stores[n] is None}
    jobs = {}
    for name, scans in unfinished.items():
        path, demand = store_path(workdir, name), annotated(config, name)
        faults += missing_masks(scans, demand)
        try:
            jobs[name] = plan_job(path, scans, slicing(config, name), workers, demand)
        except InputError as fault:
            faults += fault.args
    if faults:
        faults += faults_of(config, workdir, unfinished, workers, shard or Shard())
        raise_faults(dict.fromkeys(faults))
    with exclusive("lists of splits", workdir):
        for name, scans in found.items():
            write_splits(workdir / "splits" / f"{name}.csv", scans)
        write_checksums(workdir / "splits")
    with exclusive("preprocessing" if shard is None else f"preprocessing, shard {shard}", workdir):
        for name in jobs:
            if warning := replacement_warning(config, workdir, name):
                print(f"warning: {warning}", file=sys.stderr)
        raise_faults([x for job in jobs.values() for x in slice_scans(job, shard, workers)])
        stores |= {name: complete_store(job, shard) for name, job in jobs.items()}
    for name, store in stores.items():
        print_store(name, store)
        if warning := contrast_warning(config, name, data_sets[name]):
            print(warning)
    built = {name: store for name, store in stores.items() if store}
    if warning := screening.preparation_warning(built):
        print(f"warning: {warning}", file=sys.stderr)
    if HEALTHY in built:
        screening.warn(built[HEALTHY])


def replacement_warning(config: ConfigDict, workdir: Path, name: str) -> str | None:
    """Say that a data set has a store with other settings, if there is one: it is replaced."""
    try:
        store = open_store(store_path(workdir, name))
    except InputError:
        return None
    fault = other_slicing(config, name, store)
    return fault and (
        f"{fault}; its slices are made again, and runs that were trained on the former ones need "
        "these back: go back to those settings, or choose another folder (--workdir)"
    )


def print_store(name: str, store: SliceStore | None) -> None:
    """Print what is in a store, or that other shards have to end."""
    if store is None:
        print(f"{name}: this shard is done; the last one completes the store")
        return
    for split in dict.fromkeys(store.splits[store.scans >= 0]):
        rows = store.rows(split)
        share = anomalous(store.masks[rows]).mean()
        print(
            f"{name} {split}: {len(set(store.scans[rows]))} scans, {len(rows)} slices, "
            f"{share:.1%} of them anomalous"
        )
        if name != HEALTHY and share in (0, 1):
            lost = (
                "no score can be chosen on it" if split == "val" else "no metric is defined on it"
            )
            print(
                f"warning: {name} {split}: expected normal and anomalous slices, found only "
                f"{'anomalous' if share else 'normal'} ones, so that {lost}; move scans between "
                "val and test",
                file=sys.stderr,
            )


def shard_named(text: str | None) -> Shard | None:
    """Return the shard that --shard names, such as 3/8; None for the whole.

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


def annotated(config: ConfigDict, name: str) -> Annotated:
    """Return which scans of a data set need a mask."""
    if name == HEALTHY:
        return "none"
    return "some" if config.data.sets[name].layout == "csv" else "all"


def faults_of(
    config: ConfigDict,
    workdir: Path,
    data_sets: dict[str, list[Scan]],
    workers: int,
    shard: Shard,
) -> list[str]:
    """Read a shard's scans that are not sliced yet, and return all that is wrong with them."""
    faults = []
    for name, scans in data_sets.items():
        settings = slicing(config, name)
        done = sliced(store_path(workdir, name), scans, settings)
        todo = [scans[number] for number in shard.share(len(scans)) if number not in done]
        label = f"checking {name}"
        faults += scan_faults(todo, settings, annotated(config, name), workers, label)
    return faults
