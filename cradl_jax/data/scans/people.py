"""What the files beside scans say of the data set and of its people.

root/dataset_description.json    name, licence and DOI, as BIDS has them
root/participants.tsv            participant_id, and perhaps age, sex, site
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePath

from cradl_jax.data.scans.layouts import read_table, stem
from cradl_jax.storage.reading import read_json

DESCRIPTION, PARTICIPANTS = "dataset_description.json", "participants.tsv"
DEEPEST = 4  # folders between a data set and its scans: sub-1/ses-1/anat, and one to spare
STATED = ("Name", "License", "DatasetDOI")
UNKNOWN = ("", "n/a", "nan", "none")
"""Cells that say nothing, in any spelling of their case."""
IXI = re.compile(r"IXI\d+-([A-Za-z]+)-\d+")  # IXI002-Guys-0828-T2


def root_of(image: Path) -> Path | None:
    """Return the folder of the data set that a scan is in; None if no folder above it is one."""
    for folder in list(image.parents)[:DEEPEST]:
        if any((folder / name).is_file() for name in (DESCRIPTION, PARTICIPANTS)):
            return folder
    return None


def description(root: Path) -> dict[str, str]:
    """Return what a data set says of itself, one or more of `STATED`; the name without folders."""
    try:
        content = read_json(root / DESCRIPTION)
    except (OSError, ValueError):
        return {}
    fields = content if isinstance(content, dict) else {}
    found = {name: fields[name] for name in STATED if isinstance(fields.get(name), str)}
    if PurePath(found.get("Name", "")).is_absolute():  # as experiments.prepare names what it read
        found["Name"] = PurePath(found["Name"]).name
    return found


def participants(root: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a BIDS folder's table of participants, see `by_person`; {} without one."""
    path = root / PARTICIPANTS
    return by_person(path, "\t", "participant_id") if path.is_file() else {}


def by_person(table: Path, delimiter: str, column: str) -> dict[str, dict[str, str]]:
    """Return the rows of a table by the names in `column`, without the cells that say nothing.

    Other columns are named in lower case.

    Raises:
        InputError: the table cannot be read.
    """
    return {
        row[column]: {
            name.lower(): cell for name, cell in row.items() if cell.lower() not in UNKNOWN
        }
        for _, row in read_table(table, delimiter, (column,))
    }


def site(image: Path, row: Mapping[str, str]) -> str | None:
    """Return the site of a scan: of its row of the table, else of its name as IXI has them."""
    in_name = IXI.search(stem(image))
    return row.get("site") or (in_name[1] if in_name else None)
