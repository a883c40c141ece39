"""Paste foreign objects into the scans that a study holds out (Section 4.1)."""

import os
import re
from collections import Counter
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import jax
from ml_collections import ConfigDict

from cradl_jax.data.scans import bids
from cradl_jax.data.scans.checks import read_scan
from cradl_jax.data.scans.fingerprint import fingerprint
from cradl_jax.data.scans.layouts import HELD_OUT, Scan, raise_faults
from cradl_jax.data.scans.preparation import FIELD, record_path, stated_preparation
from cradl_jax.data.scans.splits import bare
from cradl_jax.data.scans.workers import map_scans
from cradl_jax.data.synthetic import phantom
from cradl_jax.data.synthetic.pasting import write_pasted
from cradl_jax.errors import InputError
from cradl_jax.storage.files import write_json
from cradl_jax.storage.manifest import write_manifest
from experiments.study import data_sets

AT_ONCE = 4  # a scan of HCP's size takes more than 1 GB


def made_sets(config: ConfigDict) -> list[str]:
    """Return the names of the data sets that are made from another.

    Raises:
        InputError: there is none.
    """
    names = [n for n in data_sets.names(config) if config.data.sets[n].get("made_from")]
    if not names:
        raise InputError(
            "config.data.sets: expected a data set with made_from, the name of the one whose held "
            "out scans it is made from, found none; use --config=configs/hcp.py or add one"
        )
    return names


def synthesize(config: ConfigDict, workdir: Path, name: str) -> None:
    """Write the data set `name`, reading each scan once.

    Raises:
        InputError: sources cannot be used; all are named, and the others are written.
    """
    workers = config.data.workers or min(os.cpu_count() or 1, AT_ONCE)
    sources = held_out(config, workdir, name)
    root = claim(config, workdir, name, sources)
    splits = {bare(scan.subject): scan.split for scan in sources}
    missing = [s for s in sources if not bids.scan_path(root, bare(s.subject)).exists()]
    bids.write_data_set(root, config.data.sets[name].get("paper", name), splits)

    def write(scan: Scan) -> None:
        subject = bare(scan.subject)
        if scan.mask is not None:
            read_scan(scan, {"size": 1, "field_mm": 1.0}, "none")
        if made := stated_preparation(scan.image):
            copied = {FIELD: made.model_dump(), "Sources": [str(scan.image)]}
            write_json(record_path(bids.scan_path(root, subject)), copied)
        write_pasted(subject_key(config.data.seed, subject), scan.image, root, subject)

    if missing:
        faults: list[str] = []
        list(map_scans(write, missing, workers, f"writing {name}", faults))
        raise_faults(faults)
    counts = sorted(Counter(splits.values()).items())
    print(f"{root}: {', '.join(f'{count} {split}' for split, count in counts)}")


def held_out(config: ConfigDict, workdir: Path, name: str) -> list[Scan]:
    """Find the scans that the data set `name` is made from, with their splits in it.

    Raises:
        InputError: the scans are missing, too few, not T2w, or cannot be named as BIDS does.
    """
    data_sets.require_t2w(config, f"the data set '{name}'")
    source = config.data.sets[name].made_from
    scans, faults = data_sets.find_data_set(config, workdir, source)
    raise_faults(faults)
    drawn = [replace(scan, split=None) for scan in scans if scan.split == HELD_OUT]
    if not drawn:
        raise InputError(
            f"config.data.sets.{source}: expected subjects held out for '{name}', found none; set "
            f"splits.held_out, or give some the split {HELD_OUT} in its split_file"
        )
    try:
        drawn, faults = data_sets.with_splits(config, name, drawn)
    except InputError as fault:
        raise InputError(f"data set '{name}', made from '{source}': {fault}") from fault
    for subject, count in Counter(scan.subject for scan in drawn).items():
        if count > 1 or not re.fullmatch("[0-9A-Za-z]+", bare(subject)):
            faults.append(
                f"subject {subject}: expected one scan and a name of letters and digits, found "
                f"{count}; keep one scan, or rename the subject"
            )
    raise_faults(faults)
    return data_sets.used(drawn)


def claim(config: ConfigDict, workdir: Path, name: str, sources: list[Scan]) -> Path:
    """Return the data set's folder, its manifest written, or checked where it is there already.

    Raises:
        InputError: the folder was made from other scans or with another seed, or not by this.
    """
    root = data_sets.data_root(config, workdir) / config.data.sets[name].path
    elsewhere = f"--config.data.sets.{name}.path=... puts the data set elsewhere"
    if root.exists() and any(root.iterdir()) and not (root / "manifest.json").exists():
        raise InputError(
            f"{root}: expected nothing or what this command made, found other files; move them "
            f"away ({elsewhere})"
        )
    subjects = {bare(scan.subject): scan.split for scan in sources}
    made_with = {"seed": config.data.seed, "generator": phantom.GENERATOR, "subjects": subjects}
    try:
        write_manifest(root, made_with, fingerprint(sources, {}))
    except InputError as fault:
        raise InputError(f"{fault} ({elsewhere})") from fault
    return root


def subject_key(seed: int, subject: str) -> jax.Array:
    """Return the key of a subject's object, which does not depend on the other subjects."""
    number = int.from_bytes(blake2b(subject.encode(), digest_size=4).digest(), "big")
    return jax.random.fold_in(jax.random.key(seed), number)
