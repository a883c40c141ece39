"""Prepare a raw scan as a run's training scans were, and bring what is found back onto its voxels.

SimpleITK and a tool for brain extraction are needed only here.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nibabel.affines import apply_affine

from cradl_jax.data.scans.preparation import NONE, Preparation, in_words
from cradl_jax.data.scans.volumes import Volume
from cradl_jax.errors import InputError
from cradl_jax.prediction.scan import Prediction
from cradl_jax.preparation import images
from cradl_jax.preparation.extraction import TOOLS, command_of, read_source
from cradl_jax.preparation.scan import Prepared, prepare, to_scan
from cradl_jax.preparation.template import load_template


class RawScan(NamedTuple):
    """A scan as its file has it, and as a model takes it.

    Attributes:
        head: voxels of the file, with all that surrounds the brain.
        brain: what was prepared of it.
        prepared: the same, with how it was moved.
    """

    head: Volume
    brain: Volume
    prepared: Prepared


def preparation_like(trained: Preparation | None, extract: str | None) -> Preparation:
    """Return how to prepare scans for a run whose training scans were prepared as `trained`.

    A run may come from anyone, so that its own command for brain extraction is never executed.

    Args:
        trained: None if that is not known.
        extract: the user's choice in place of the run's tool; None is the run's.

    Raises:
        InputError: it is not known, or a tool is missing here.
    """
    if trained is None:
        raise InputError(
            "--prepare: expected a run whose training scans experiments.prepare made, all alike, "
            "found one whose scans came otherwise; prepare the scan as those were, and leave "
            "--prepare away"
        )
    tool = extract or trained.extract
    if extract is None and tool not in (*TOOLS, NONE):
        raise InputError(
            f"--extract: expected the tool for brain extraction, since the run's own is a command "
            f"({tool!r}), which is never executed from a file; give it with --extract if you trust "
            f"it, or one of {', '.join((*TOOLS, NONE))}"
        )
    images.itk()
    if tool != NONE:
        command_of(tool)
    return Preparation(extract=tool, align=trained.align, spacing_mm=trained.spacing_mm)


def check_extract(extract: str | None, prepare: bool) -> None:
    """Raise an InputError if a tool is named though nothing is to be prepared."""
    if extract is not None and not prepare:
        raise InputError("--extract: expected --prepare beside it, found none; add --prepare")


def read_raw(path: Path, preparation: Preparation) -> RawScan:
    """Read a raw scan and prepare it.

    Raises:
        InputError: the file is at fault, or a step of the preparation fails.
    """
    head = read_source(path, preparation.extract)
    try:
        prepared = prepare(head, None, preparation, load_template())
    except RuntimeError as fault:  # SimpleITK's
        raise InputError(
            f"{path}: expected a head that can be prepared, found {fault}; look at the scan"
        ) from fault
    spacing = preparation.spacing_mm
    spacings = (spacing, spacing, spacing)
    return RawScan(head, Volume(prepared.data, prepared.affine, spacings, head.origin), prepared)


def on_head(prediction: Prediction, raw: RawScan) -> Prediction:
    """Bring the map of a prepared scan, and the places of its slices, back to the raw scan.

    The map is interpolated linearly, and 0 outside of the brain.
    """
    moved, affine = raw.prepared.to_template, raw.prepared.affine
    brain = to_scan(raw.prepared.brain, affine, moved, raw.head) >= 0.5
    heat = to_scan(prediction.anomaly_map, affine, moved, raw.head) * brain
    centers = apply_affine(np.linalg.inv(moved), prediction.centers_mm)
    return prediction._replace(anomaly_map=heat, centers_mm=centers)


def about(raw: RawScan, preparation: Preparation) -> dict[str, Any]:
    """Return how a scan was prepared in plain values, for its summary."""
    return {
        **preparation.model_dump(),
        "scan_to_template": raw.prepared.to_template.tolist(),
        "measures": raw.prepared.measures,
    }


def difference(scan: Preparation | None, trained: Preparation | None) -> list[str]:
    """Say that a scan was prepared otherwise than the training scans, if it was."""
    if scan == trained:
        return []
    return [
        f"This scan was prepared {in_words(scan)}, the training scans {in_words(trained)}: "
        "differences of pose, grid or brain extraction may look like anomalies."
    ]
