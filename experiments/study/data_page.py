"""A page with every scan of a study's data sets, those that are unlike the training scans first."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from scipy import ndimage

from cradl_jax.data.scans.layouts import Scan
from cradl_jax.data.scans.volumes import read_volume
from cradl_jax.data.scans.workers import map_scans
from cradl_jax.data.slices.scan_statistics import Description, describe
from cradl_jax.prediction import input_qc
from cradl_jax.reporting.figures import cut, planes
from cradl_jax.reporting.page import Picture, Section, Table, html_page
from cradl_jax.storage.files import write_text
from experiments.study.data_sets import HEALTHY, used

AS_EXPECTED = "nothing unusual"
HEADER = (
    *("scan", "split", "unlike the training scans", "brain, ml"),
    *("extent along R, A, S, mm", "voxels along R, A, S, mm", "layers with brain"),
)


class Seen(NamedTuple):
    """What is shown of a scan.

    Attributes:
        scan: of a data set.
        description: what is compared of it.
        planes: axial, coronal and sagittal through the brain's middle, [rows, columns] each.
        aspects: of their pixels, height over width.
    """

    scan: Scan
    description: Description
    planes: Sequence[np.ndarray]
    aspects: Sequence[float]


def write(
    config: ConfigDict, found: Mapping[str, Sequence[Scan]], place: Path, faults: list[str]
) -> None:
    """Read all scans, the healthy ones first, and write the page; add what is wrong to `faults`.

    Training scans are compared with one another, and all others with those that are alike.
    """
    workers = config.data.workers or os.cpu_count() or 1
    sections, reference = [], None
    for name, scans in found.items():
        lost: list[str] = []
        seen = list(map_scans(look, used([*scans]), workers, f"scans of {name}", lost))
        faults += lost
        if name == HEALTHY:
            training = [one.description for one in seen if one.scan.split == "train"]
            among = input_qc.unlike_the_others(training) if training else {}
            alike = [one for number, one in enumerate(training) if number not in among]
            reference = input_qc.summarize(alike) if alike else None
        judged = [
            (one, input_qc.warnings(one.description, reference) if reference else [])
            for one in seen
        ]
        sections += _sections(name, judged, lost)
    write_text(place, html_page("The scans of a study", sections))


def look(scan: Scan) -> Seen:
    """Read a scan, describe it, and cut the three planes through the middle of its brain.

    Raises:
        InputError: If it cannot be used.
    """
    volume = read_volume(scan.image)
    (box,) = ndimage.find_objects((volume.data != 0).view(np.uint8))
    middle = [(side.start + side.stop) // 2 for side in box]
    x, y, z = volume.spacing_mm
    return Seen(scan, describe(volume), cut(volume.data, middle), (y / x, z / x, z / y))


def _sections(
    name: str, judged: Sequence[tuple[Seen, Sequence[str]]], lost: Sequence[str]
) -> list[Section]:
    """Return the sections of a data set: a table of its scans, and a picture of each."""
    ordered = sorted(judged, key=lambda pair: -len(pair[1]))
    rows, pictures = [], []
    for (scan, description, shown, aspects), sentences in ordered:
        why = " ".join(sentences) or AS_EXPECTED
        lengths = (
            ", ".join(f"{one:.3g}" for one in values)
            for values in (description.extent_mm, description.spacing_mm)
        )
        brain = f"{description.brain_ml:.0f}"
        layers = str(description.n_slices)
        rows.append((str(scan.image), scan.split or "–", why, brain, *lengths, layers))
        outlines = [{"red": one != 0} for one in shown]
        pictures.append(Picture(planes(shown, outlines, aspects), f"{scan.image}: {why}"))
    unlike = sum(bool(sentences) for _, sentences in judged)
    caption = f"{len(rows)} scans, {unlike} of them unusual, which come first."
    parts = [Table(caption, HEADER, rows), *pictures]
    faults = Table("Scans that cannot be used.", ("why",), [(fault,) for fault in lost])
    return [Section(name, [faults, *parts] if lost else parts)]
