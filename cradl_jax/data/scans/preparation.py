"""How `experiments.prepare` made a scan, as the JSON file beside the scan states it."""

import json
from pathlib import Path
from typing import Annotated, Literal, get_args

from cradl_jax.data.scans.layouts import stem
from cradl_jax.storage.schema import Positive, Record, Text, one_of

Align = Literal["rigid", "affine", "none"]
"""Six parameters; twelve, which also makes brains equally large; none but a shift of the middle."""
NONE = "none"
"""In place of a tool for brain extraction: for scans whose brain is extracted already."""
FIELD = "Settings"
"""Name in the JSON file of a prepared scan."""


class Preparation(Record):
    """How scans are prepared; scans are alike only if these are the same.

    Attributes:
        extract: a tool of `preparation.extraction.TOOLS`, a command, or "none".
        align: which alignment with the template.
        spacing_mm: of the grid's voxels.
    """

    extract: Text
    align: Annotated[Align, one_of(get_args(Align))]
    spacing_mm: Positive


def record_path(image: Path) -> Path:
    """Return the JSON file of a prepared scan."""
    return image.with_name(f"{stem(image)}.json")


def stated_preparation(image: Path) -> Preparation | None:
    """Return how a scan was prepared; None if nothing beside it says so."""
    try:
        content = json.loads(record_path(image).read_text(encoding="utf-8"))
        return Preparation.model_validate(content[FIELD])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def in_words(preparation: Preparation | None) -> str:
    """Say how a scan was prepared."""
    if preparation is None:
        return "otherwise than by experiments.prepare"
    values = preparation.model_dump().items()
    return "with " + ", ".join(f"{name}={value}" for name, value in values)
