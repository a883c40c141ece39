"""Find the training scans that are unlike the others, before a model learns from them."""

import os
import sys

from cradl_jax.data.slices.scan_statistics import read_descriptions
from cradl_jax.data.slices.store import SliceStore
from cradl_jax.prediction import input_qc
from cradl_jax.reporting.page import Table

MOST_NAMED = 10  # on the terminal


def unlike_the_others(healthy: SliceStore) -> dict[str, str]:
    """Return what makes training scans unlike the others, in sentences, by the scan's file."""
    images = [record["image"] for record in healthy.records if record["split"] == "train"]
    found = input_qc.unlike_the_others(read_descriptions(healthy.path))
    return {
        os.path.normpath(healthy.path / images[number]): " ".join(sentences)
        for number, sentences in found.items()
    }


def warn(healthy: SliceStore) -> None:
    """Name the training scans that are unlike the others."""
    found = unlike_the_others(healthy)
    lines = [f"{path}: unlike the other training scans. {why}" for path, why in found.items()]
    if len(lines) > MOST_NAMED:
        lines[MOST_NAMED:] = [f"{len(lines) - MOST_NAMED} more such scans; the report lists all"]
    for line in lines:
        print(f"warning: {line}", file=sys.stderr)


def table(healthy: SliceStore) -> Table:
    """Return the training scans that are unlike the others; it has no row if there is none."""
    caption = (
        "Training scans that are unlike the others. Look at each: the model learns from it unless "
        "it is taken out of the list of healthy scans."
    )
    return Table(caption, ("scan", "what is unlike"), list(unlike_the_others(healthy).items()))
