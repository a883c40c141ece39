"""Write the data sets of the embedded phantom."""

import os
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from cradl_jax.data.scans import bids
from cradl_jax.data.scans.workers import map_scans
from cradl_jax.data.synthetic import anomalies, phantom
from cradl_jax.data.synthetic.atlas import Atlas, load_atlas
from cradl_jax.storage.manifest import write_manifest
from experiments.cli.locking import exclusive
from experiments.study import data_sets

INTENSITY = 1000  # of fluid, in the integers of the files


def healthy(key: jax.Array, atlas: Atlas, spacing_mm: phantom.Spacing) -> tuple:
    """Sample a scan and no mask."""
    subject = phantom.sample_healthy(key, atlas, spacing_mm)
    return subject.intensities, None


def synth(key: jax.Array, atlas: Atlas, spacing_mm: phantom.Spacing) -> tuple:
    """Sample a scan with a foreign object and its mask."""
    subject_key, object_key = jax.random.split(key)
    subject = phantom.sample_healthy(subject_key, atlas, spacing_mm)
    return anomalies.paste_object(object_key, subject.intensities, subject.brain, spacing_mm)


def lesion(key: jax.Array, atlas: Atlas, spacing_mm: phantom.Spacing) -> tuple:
    """Sample a scan with lesions, from another scanner, and their mask."""
    subject_key, lesion_key, scanner_key = jax.random.split(key, 3)
    subject = phantom.sample_healthy(subject_key, atlas, spacing_mm)
    volume, mask = anomalies.add_lesions(lesion_key, subject.intensities, subject.brain, spacing_mm)
    return anomalies.scanner_shift(scanner_key, volume, subject.brain, spacing_mm), mask


DATA_SETS = {"healthy": healthy, "synth": synth, "lesion": lesion}


def in_order(name: str, splits: Iterable[str]) -> list[str]:
    """Return a data set's splits in the order in which its brains are numbered and drawn.

    Healthy test scans come last, so that with or without them all others are the same.
    """
    return sorted(splits, key=lambda split: (name == data_sets.HEALTHY and split == "test", split))


def write_subject(root: Path, sample, key: jax.Array, spacing_mm: phantom.Spacing, subject: str):
    """Sample one subject and write its files, the scan last: it says that both are there."""
    volume, mask = jax.device_get(sample(key))
    affine = phantom.affine(spacing_mm)
    if mask is not None:
        bids.write_volume(bids.mask_path(root, subject), mask.astype(np.uint8), affine)
    counts = np.where(volume > 0, np.maximum(np.rint(volume * INTENSITY), 1), 0)
    bids.write_volume(bids.scan_path(root, subject), counts.astype(np.int16), affine)


def make(config: ConfigDict, workdir: Path) -> None:
    """Write the data sets, except for what is there already.

    Raises:
        InputError: the study takes another contrast than the phantom's, T2w.
    """
    data_sets.require_t2w(config, "the phantom")
    folder, settings = data_sets.data_root(config, workdir), config.phantom
    spacing_mm = (settings.spacing_mm,) * 3
    jobs, atlas = [], cache(load_atlas)
    with exclusive("the phantom", folder):
        for index, (name, sample) in enumerate(DATA_SETS.items()):
            root = folder / name
            counts = settings.subjects[name].to_dict()
            made_with = {"spacing_mm": settings.spacing_mm, "subjects": counts}
            made_with["generator"] = phantom.GENERATOR
            write_manifest(root, made_with, f"seed {settings.seed}")
            order = [split for split in in_order(name, counts) for _ in range(counts[split])]
            splits = {f"{name}{number:03d}": split for number, split in enumerate(order, 1)}
            bids.write_data_set(root, f"CRADL phantom, {name}", splits)
            set_key = jax.random.fold_in(jax.random.key(settings.seed), index)
            for position, subject in enumerate(splits):
                if not bids.scan_path(root, subject).exists():
                    key = jax.random.fold_in(set_key, position)
                    draw = partial(sample, atlas=atlas(spacing_mm), spacing_mm=spacing_mm)
                    jobs.append(partial(write_subject, root, draw, key, spacing_mm, subject))
        if jobs:
            workers = config.data.workers or os.cpu_count() or 1
            list(map_scans(lambda write: write(), jobs, workers, "write phantom"))
