"""Gather what was measured beyond the paper: scans, lesions, the brain, healthy test scans."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from cradl_jax.data.scans import people
from cradl_jax.data.scans.splits import bare
from cradl_jax.data.slices.store import SliceStore
from cradl_jax.errors import InputError
from cradl_jax.evaluation import bootstrap, results
from cradl_jax.evaluation.results import Choice, Result
from cradl_jax.names import BASELINE
from cradl_jax.reporting import protocol_tables, summary
from cradl_jax.reporting.page import Table
from cradl_jax.storage.reading import read_arrays
from experiments.study import data_sets, runs
from experiments.study.data_sets import HEALTHY
from experiments.study.evaluation import EVALUATED, HEALTHY_TEST

ATTRIBUTES = ("site", "scanner", "age", "sex")
AGE_BAND = 20  # years


def tables(
    config: ConfigDict, workdir: Path, rows: Sequence[Result], opened: Mapping[str, SliceStore]
) -> list[Table]:
    """Return all tables of the protocol beyond the paper."""
    written = protocol_tables.protocol_tables(list(estimates(config, workdir, rows)))
    if opened[HEALTHY].rows("test").size and written:
        names, notes = groups(config, workdir, opened[HEALTHY])
        measured = list(healthy_groups(config, workdir, rows, names))
        if measured:  # else no score could be chosen
            written.append(protocol_tables.healthy_table(measured, notes))
    return written


def estimates(
    config: ConfigDict, workdir: Path, rows: Sequence[Result]
) -> Iterator[summary.Estimate]:
    """Yield every metric beyond the paper on test, of scores chosen among all, with intervals.

    Scans are told by the slice score, everything else by the heatmap.
    """
    spreads = {
        level: summary.measured(rows, level, "test") for level in ("voxel", "scan", "lesion")
    }
    for choice, score in results.select_scores(rows).items():
        if choice.comparison != "beyond":
            continue
        draws = read_draws(config, workdir, choice)
        of_slices = choice.level == "slice"
        for level in ("scan",) if of_slices else spreads:
            for (dataset, method, name, metric), (mean, _) in spreads[level].items():
                of_heatmap = level != "scan" or metric.startswith("dice")
                if (dataset, method, name) != (choice.dataset, choice.method, score):
                    continue
                if of_slices != of_heatmap:
                    drawn = [one.get(f"{level}-{score}-{metric}", np.empty(0)) for one in draws]
                    ends = bootstrap.interval(np.mean(drawn, axis=0))
                    key = dataset, level, "beyond", method, score, metric
                    yield summary.Estimate(*key, mean, *ends)


def read_draws(config: ConfigDict, workdir: Path, choice: Choice) -> list[dict[str, np.ndarray]]:
    """Read the bootstrap draws of a method on the test scans of a data set, for each seed."""
    name = f"{choice.dataset}_test_draws.npz"
    folders = (runs.folder(workdir, seed, choice.method) for seed in config.seeds)
    return [read_arrays(folder / "evaluation" / name, *EVALUATED) for folder in folders]


def healthy_groups(
    config: ConfigDict, workdir: Path, rows: Sequence[Result], names: Mapping[str, np.ndarray]
) -> Iterator[protocol_tables.Group]:
    """Yield what each method marks in each group of healthy test scans, by the index of scans."""
    chosen = results.select_scores(rows)
    first = next(iter(dict.fromkeys(row.dataset for row in rows)))
    for method in (*config.methods, BASELINE):
        pair = [chosen.get(Choice(first, level, "beyond", method)) for level in results.LEVELS]
        if None in pair:
            continue
        folders = (runs.folder(workdir, seed, method) for seed in config.seeds)
        arrays = [read_arrays(one / "evaluation" / HEALTHY_TEST, *EVALUATED) for one in folders]
        for group, scans in names.items():
            slices, ml = (
                {
                    name.removeprefix(prefix): mean_of([one[name][scans] for one in arrays], config)
                    for name in arrays[0]
                    if name.startswith(prefix)
                }
                for prefix in (f"slice-{pair[0]}-share@", f"voxel-{pair[1]}-ml@")
            )
            scores = str(pair[0]), str(pair[1])
            yield protocol_tables.Group(method, scores, group, len(scans), slices, ml)


def mean_of(values: Sequence[np.ndarray], config: ConfigDict) -> tuple[float, float, float]:
    """Return the mean over seeds and scans [S] with its bootstrap 95 % interval over scans."""
    over_seeds = np.mean(values, axis=0)
    weights = bootstrap.draw_weights(config.data.seed, len(over_seeds))
    draws = weights @ over_seeds / len(over_seeds) if len(over_seeds) > 1 else np.empty(0)
    return float(over_seeds.mean()), *bootstrap.interval(draws)


def groups(
    config: ConfigDict, workdir: Path, healthy: SliceStore
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Group the healthy test scans by what the table of participants says of them.

    Returns:
        The index of each group's scans by its name, that of all first, and what is left out, why.
    """
    scans = np.unique(healthy.scans[healthy.rows("test")])
    subjects = [bare(healthy.records[scan]["subject"]) for scan in scans]
    found, notes = {"all": np.arange(len(scans))}, []
    try:
        table = participants(config, workdir)
    except InputError as fault:
        return found, [f"Sites, scanners, ages and sexes are left out: {fault}"]
    missing = []
    for attribute in ATTRIBUTES:
        values = [table.get(subject, {}).get(attribute) for subject in subjects]
        if not any(values):
            missing.append(attribute)
            continue
        labels = np.array([label(attribute, value) for value in values])
        for one in sorted(set(labels)):
            found[one] = np.flatnonzero(labels == one)
    if missing:
        notes = [
            "Left out, since no column of the participants' table says it of the healthy test "
            f"scans: {', '.join(missing)}."
        ]
    return found, notes


def label(attribute: str, value: str | None) -> str:
    """Return the name of the group that a value belongs to: ages in bands, others as they are."""
    if value is None:
        return f"{attribute} not stated"
    if attribute == "age":
        try:
            low = int(float(value) // AGE_BAND) * AGE_BAND
        except (ValueError, OverflowError):
            return "age not stated"
        return f"age {low} to {low + AGE_BAND - 1}"
    return f"{attribute} {value}"


def participants(config: ConfigDict, workdir: Path) -> dict[str, dict[str, str]]:
    """Read what the healthy data set's table says of each person, see `people.by_person`.

    It is participants.tsv of a BIDS folder, or the list of scans; other layouts have none.

    Raises:
        InputError: there is no such table, or it cannot be read.
    """
    path = data_sets.data_set_path(config, workdir, HEALTHY)
    layout = config.data.sets[HEALTHY].layout
    if layout == "csv":
        listed = people.by_person(path, ",", "subject")
    else:
        listed = people.participants(path) if layout == "bids" else {}
    if not listed:
        raise InputError(
            f"{path}: expected {people.PARTICIPANTS} of layout bids, or the list of layout csv, "
            f"found none in layout {layout}"
        )
    return {bare(name): row for name, row in listed.items()}
