"""The reference of a run, thresholds.json: what its scores and its training scans look like."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from cradl_jax.errors import InputError
from cradl_jax.evaluation.thresholds import AtRates, HealthyScores
from cradl_jax.prediction.input_qc import Reference
from cradl_jax.storage.files import write_json
from cradl_jax.storage.reading import read_json
from cradl_jax.storage.schema import ImageSize, Positive, Record, Whole, parse

FILE = "thresholds.json"


class Slicing(TypedDict):
    """How a scan is sliced, see `data.slices.preprocess.slice_geometry`."""

    size: ImageSize
    offset: Whole
    slice_spacing_mm: Positive | None
    pixel_mm: Positive


class Thresholds(Record):
    """The content of thresholds.json.

    Attributes:
        slicing: how a scan is sliced: as those of the first anomalous data set, at the training
            scans' pixel size.
        slices: each slice score on healthy validation scans.
        heatmaps: thresholds of each post-processed heatmap by rate.
        training: what the training scans look like.
    """

    slicing: Slicing
    slices: Annotated[dict[str, HealthyScores], Field(min_length=1)]
    heatmaps: Annotated[dict[str, AtRates], Field(min_length=1)]
    training: Reference


def write(path: Path, thresholds: Thresholds) -> None:
    """Write thresholds.json."""
    write_json(path, thresholds.model_dump())


def read(path: Path, remedy: str) -> Thresholds:
    """Read a thresholds.json.

    Raises:
        InputError: it cannot be read, or a value is not as declared; the message ends in `remedy`.
    """
    try:
        return parse(Thresholds, read_json(path))
    except (OSError, ValueError) as fault:
        raise InputError(
            f"{path}: expected thresholds, found a damaged file ({fault}); {remedy}"
        ) from fault
