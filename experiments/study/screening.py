"""Find the training scans that are unlike the others, before a model learns from them."""

import json
import os
import sys
from collections.abc import Mapping

from cradl_jax.data.scans.preparation import Preparation, in_words
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


def preparations(store: SliceStore, split: str | None = None) -> list[Preparation | None]:
    """Return in which ways the scans of a store were prepared, of a split or of all."""
    records = [one for one in store.records if split in (None, one["split"])]
    found = {json.dumps(record["preparation"]): record["preparation"] for record in records}
    return [one and Preparation.model_validate(one) for one in found.values()]


def preparation(healthy: SliceStore) -> Preparation | None:
    """Return how the training scans were prepared; None if not all alike."""
    first, *others = preparations(healthy, "train")
    return None if others else first


def preparation_warning(stores: Mapping[str, SliceStore]) -> str | None:
    """Say that scans of a study were prepared otherwise than others, if any were."""
    found = {name: sorted(map(in_words, preparations(store))) for name, store in stores.items()}
    if len({way for ways in found.values() for way in ways}) < 2:
        return None
    listed = "; ".join(f"{name}: {' and '.join(ways)}" for name, ways in found.items())
    return (
        f"expected scans that were all prepared alike, found {listed}; what differs by preparation "
        "may be taken for what differs by disease, so prepare all in one way"
    )
