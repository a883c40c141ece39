"""Say what is in a study's data sets, what is wrong with them, and what the study will take.

Lists, headers and masks are read, the voxels of scans only for a page. Nothing is sliced.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from cradl_jax.data.scans import contrasts, people
from cradl_jax.data.scans.checks import empty_masks, missing_masks, most_slices_of
from cradl_jax.data.scans.headers import Origin
from cradl_jax.data.scans.layouts import Scan, raise_faults, stem
from cradl_jax.data.scans.volumes import read_mask, read_origin
from cradl_jax.data.scans.workers import map_scans
from cradl_jax.data.slices.building import byte_size, check_place
from cradl_jax.data.slices.store import ARRAYS
from cradl_jax.devices.machine import devices_in_words
from cradl_jax.devices.parallel import over_devices, replicate, share
from cradl_jax.errors import InputError
from cradl_jax.intensity import CLIP
from cradl_jax.names import BASELINE, PATCHES, density_names
from cradl_jax.scoring import own_scores
from cradl_jax.storage.files import free_space, in_words, require_space
from cradl_jax.storage.integrity import is_complete
from cradl_jax.training.feeds import resident
from cradl_jax.training.loop import steps_per_epoch
from cradl_jax.training.steps import train_chunk
from experiments.study import data_page, settings, training
from experiments.study.data_sets import (
    HEALTHY,
    data_set_path,
    find_all,
    slicing,
    store_path,
    used,
)
from experiments.study.evaluation import SPLITS
from experiments.study.preprocessing import annotated

STEPS = 3  # that are timed
LONG_ENOUGH = 30  # seconds of steps after which no further one is timed
UNNAMED = "not named"
UNITS = {"days": 86400, "hours": 3600, "minutes": 60}

Rows = Mapping[tuple[str, str | None], int]
"""Slices by data set and split, at most: as many as there are if brains fill their scans."""


class Header(NamedTuple):
    """What the header of a scan says.

    Attributes:
        scan: of a data set.
        origin: how its voxels lie.
        rows: slices that it has if the brain fills it.
    """

    scan: Scan
    origin: Origin
    rows: int


class DataSet(NamedTuple):
    """What a data set holds.

    Attributes:
        scans: that were found, those held out too.
        headers: of the scans that are not held out; those that cannot be used are left out.
        marked: anomalous voxels of each mask; none of the healthy data set, whose masks are not
            read, or of masks that cannot be used.
        sites: scans by site.
    """

    scans: Sequence[Scan]
    headers: Sequence[Header]
    marked: Sequence[int]
    sites: Counter[str]


def check(config: ConfigDict, workdir: Path, page: Path | None = None) -> None:
    """Print what the data sets hold and what the study will take; show all scans on a `page`.

    Raises:
        InputError: If lists, headers, masks or the disk are at fault, or else a batch size. All
            faults are named, after what was found is printed; the training is then not timed.
    """
    found, faults = find_all(config, workdir)
    rows: dict[tuple[str, str | None], int] = Counter()
    for name, scans in found.items():
        data_set = read_data_set(config, workdir, name, scans, faults)
        for header in data_set.headers:
            rows[name, header.scan.split] += header.rows
        place = f"layout {config.data.sets[name].layout}, {data_set_path(config, workdir, name)}"
        print("\n".join([f"{name}: {place}", *describe(name, data_set)]), flush=True)
    if page is not None:
        data_page.write(config, found, page, faults)
        print(f"page: {page.absolute().as_uri()}", flush=True)
    print("\n".join(needs(config, workdir, rows)), flush=True)
    try:
        require_space(workdir, sum(bytes_needed(config, workdir, rows)), "slices and heatmaps")
    except InputError as fault:
        faults += fault.args
    raise_faults(dict.fromkeys(faults))
    epochs = steps_of_epochs(config, rows[HEALTHY, "train"])
    seconds = {
        method: seconds_per_step(config, method)
        for method in tqdm(config.methods, desc="time steps", unit="method")
    }
    print("\n".join(training_times(config, epochs, seconds)))


def read_data_set(
    config: ConfigDict, workdir: Path, name: str, scans: Sequence[Scan], faults: list[str]
) -> DataSet:
    """Read the headers and masks of a data set under progress bars; add what is wrong to `faults`.

    Headers are at fault as in `building.plan_job`.
    """
    workers, demand = config.data.workers or os.cpu_count() or 1, annotated(config, name)
    wanted = used([*scans])
    try:
        check_place(store_path(workdir, name))
    except InputError as fault:
        faults += fault.args
    faults += missing_masks(wanted, demand) if wanted else []
    read = partial(read_header, settings=slicing(config, name))
    headers = list(map_scans(read, wanted, workers, f"headers of {name}", faults))
    masked = [(scan.mask, origin) for scan, origin, _ in headers if scan.mask and name != HEALTHY]
    marked: list[int] = []
    if masked:
        marked += map_scans(count_marked, masked, workers, f"masks of {name}", faults)
    if marked and len(marked) == len(masked) and not any(marked):
        faults.append(empty_masks(wanted))
    bids = config.data.sets[name].layout == "bids"
    root = data_set_path(config, workdir, name) if bids and scans else None
    return DataSet(scans, headers, marked, sites(scans, root))


def read_header(scan: Scan, settings: Mapping[str, Any]) -> Header:
    """Read the header of a scan, to be sliced by the settings of `normalized_slices`.

    Raises:
        InputError: If the file cannot be used, or no slice is left.
    """
    origin = read_origin(scan.image)
    return Header(scan, origin, most_slices_of(origin, settings))


def count_marked(masked: tuple[Path, Origin]) -> int:
    """Read a mask and return how many voxels of its image, of which the origin is, are anomalous.

    Raises:
        InputError: If the mask cannot be used.
    """
    return int(np.count_nonzero(read_mask(*masked)))


def sites(scans: Iterable[Scan], root: Path | None) -> Counter[str]:
    """Count the scans of each site, see `people.site`; `root` is the folder of a BIDS data set.

    Raises:
        InputError: If a table of its participants is there but cannot be read.
    """
    listed = people.participants(root) if root else {}
    return Counter(
        people.site(scan.image, listed.get(scan.subject, {})) or UNNAMED for scan in scans
    )


def describe(name: str, data_set: DataSet) -> list[str]:
    """Return what is in a data set, a line a fact."""
    scans, headers, marked, of_sites = data_set
    if not scans:
        return ["  no scan could be listed"]
    lines = []
    for split, count in Counter(scan.split for scan in scans).items():
        subjects = len({scan.subject for scan in scans if scan.split == split})
        slices = sum(header.rows for header in headers if header.scan.split == split)
        rest = f", at most {slices} slices" if slices else ""
        lines.append(f"{split or 'no split'}: subjects {subjects}, scans {count}{rest}")
    if headers:
        origins = [header.origin for header in headers]
        stated = sum(origin.states_orientation for origin in origins)
        lines += [
            f"shape along R, A, S: {extent(origin.ras_shape for origin in origins)} voxels",
            f"spacing along R, A, S: {extent(origin.spacing_mm for origin in origins)} mm",
            f"orientation: {counted(Counter(origin.axes for origin in origins))}; stated by "
            f"{stated} of {len(origins)} files",
        ]
    named = Counter(contrasts.stated(stem(scan.image)) or UNNAMED for scan in scans)
    lines.append(f"contrast by file name: {counted(named)}")
    if of_sites.keys() != {UNNAMED}:
        lines.append(f"sites: {counted(of_sites)}")
    if name != HEALTHY:
        wanted = used([*scans])
        masks, anomalous = sum(s.mask is not None for s in wanted), sum(n > 0 for n in marked)
        share = f"{anomalous / len(wanted):.0%}" if wanted else "none"
        unread = f"; masks not read: {masks - len(marked)}" if len(marked) < masks else ""
        lines.append(
            f"annotated: {masks} of {len(wanted)} scans have a mask; {anomalous} ({share}) have an "
            f"anomaly in it{unread}"
        )
    return [f"  {line}" for line in lines]


def extent(vectors: Iterable[Sequence[float]]) -> str:
    """Return the range of each component, such as 20-30 x 24 x 16."""
    parts = []
    for values in zip(*vectors, strict=True):
        low, high = (f"{round(value, 2):g}" for value in (min(values), max(values)))
        parts.append(low if low == high else f"{low}-{high}")
    return " x ".join(parts)


def counted(counts: Counter[str]) -> str:
    """Return counts in words, the largest first, such as RAS 12, LPS 3."""
    return ", ".join(f"{what} {count}" for what, count in counts.most_common())


def bytes_needed(config: ConfigDict, workdir: Path, rows: Rows) -> tuple[int, int]:
    """Return the bytes that slices which are not there yet, and heatmaps, take on the disk at most.

    Heatmaps of one split and scorer lie there at a time: of all densities, a method's own ones, or
    those of the baselines.
    """
    size = config.data.size
    slices = sum(
        byte_size(count, size)
        for (name, _), count in rows.items()
        if not is_complete(store_path(workdir, name))
    )
    scored = [count for (_, split), count in rows.items() if split in SPLITS]
    steps, baselines = config.score.restoration_steps, (*own_scores(BASELINE).heatmaps, *PATCHES)
    own = (own_scores(method, steps).heatmaps for method in config.methods)
    maps = max(map(len, (density_names(settings.of_densities(config)), *own, baselines)))
    pixels = max(scored, default=0) * size**2
    return slices, pixels * maps * np.dtype(np.float32).itemsize


def needs(config: ConfigDict, workdir: Path, rows: Rows) -> list[str]:
    """Return what the study needs on the disk and in memory, a line each."""
    slices, heatmaps = map(in_words, bytes_needed(config, workdir, rows))
    trained = sum(rows.get((HEALTHY, split), 0) for split in ("train", "val"))
    images = trained * config.data.size**2 * np.dtype(ARRAYS["images"]).itemsize
    _, words = training.placement(config.data.stream, images)
    return [
        f"disk: slices take at most {slices} more, heatmaps at most {heatmaps} at a time; "
        f"{in_words(free_space(workdir))} are free",
        f"memory, if brains fill their scans: {words}",
    ]


def steps_of_epochs(config: ConfigDict, slices: int) -> dict[str, int]:
    """Return the steps of an epoch of each method on so many training slices.

    Raises:
        InputError: If a batch is too large, or does not divide over the devices.
    """
    steps, faults = {}, []
    for method in config.methods:
        batch_size = settings.of_method(config, method).train.batch_size
        try:
            share(batch_size, jax.devices())
            steps[method] = steps_per_epoch(slices, batch_size)
        except InputError as fault:
            faults += fault.args
    raise_faults(dict.fromkeys(faults))
    return steps


def seconds_per_step(config: ConfigDict, method: str) -> float:
    """Time steps of a method's training on random slices, once compiled; return their mean."""
    size, batch = config.data.size, settings.of_method(config, method).train.batch_size
    objective, optimizer, state = training.start(config, method, STEPS)
    devices = jax.devices()
    images = np.random.default_rng(0).uniform(-CLIP, CLIP, (batch, size, size))
    feed = resident(images.astype(ARRAYS["images"]), devices)
    ((data, rows),) = feed.chunks([np.arange(batch)[None]])
    state, key = replicate(state, devices), jax.random.key(config.seed)
    step = over_devices(train_chunk(objective, optimizer), devices, (None, 0, 0, None), None)
    step = step.lower(state, data, rows, key).compile()
    started, done, elapsed = time.perf_counter(), 0, 0.0
    while done < STEPS and elapsed < LONG_ENOUGH:
        state, *_ = jax.block_until_ready(step(state, data, rows, key))
        done, elapsed = done + 1, time.perf_counter() - started
    return elapsed / done


def training_times(
    config: ConfigDict, epochs: Mapping[str, int], seconds: Mapping[str, float]
) -> list[str]:
    """Return how long the trainings of a study take, given each method's steps an epoch.

    `seconds` are those of a step.
    """
    lines, total = [], 0.0
    for method, steps in epochs.items():
        count = settings.of_method(config, method).train.epochs
        whole = len(config.seeds) * count * steps * seconds[method]
        lines.append(
            f"  {method}: seeds {len(config.seeds)}, epochs {count}, steps an epoch {steps}, "
            f"{seconds[method]:.3g} s a step: {duration(whole)}"
        )
        total += whole
    return [
        f"training: about {duration(total)} on {devices_in_words()}; an estimate from {STEPS} "
        "steps or less of each method, if brains fill their scans; densities, thresholds and "
        "scores come on top",
        *lines,
    ]


def duration(seconds: float) -> str:
    """Return a time as people read it, to a tenth of its unit."""
    unit = next((unit for unit, length in UNITS.items() if seconds >= 2 * length), "seconds")
    return f"{seconds / UNITS.get(unit, 1):.1f} {unit}"
