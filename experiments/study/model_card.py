"""Describe a run by its model card: what its folder, and the slices beside it, say of it."""

import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cradl_jax.data.scans import people
from cradl_jax.data.slices.store import SliceStore, open_store
from cradl_jax.errors import InputError
from cradl_jax.evaluation import bootstrap
from cradl_jax.evaluation.results import Result
from cradl_jax.reporting import card
from cradl_jax.reporting.card import DataSplit, Facts, Source
from cradl_jax.reporting.summary import Estimate
from cradl_jax.runs import archive, folder
from cradl_jax.runs.contents import RunContents
from cradl_jax.storage import integrity
from cradl_jax.storage.files import write_text
from cradl_jax.storage.manifest import read_manifest
from cradl_jax.storage.reading import read_arrays
from experiments.study import screening
from experiments.study.data_sets import HEALTHY, store_path
from experiments.study.report import EVALUATED

LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
NO_SLICES = (
    "Nothing more is known of the data set {}: when this card was made, its slices did not lie "
    "beside the run, or were others."
)
NO_CARD = "Nothing more is known of the data: the export that this one was made from has no card."
LOST = "The export that this one was made from has no evaluation."


def export(source: Path, run: RunContents, out: Path, license: str) -> Path:
    """Write a run to the file `out` with its model card in it and beside it; return the latter.

    `source` is where the run was read from. An exported run keeps its card.

    Raises:
        InputError: a file cannot be written, or lies there and is no card of the file that is to be
            replaced; `license` is no identifier, or the run has a card; an evaluation is damaged.
    """
    beside = out.with_suffix(".md")
    check_license(license, run)
    check_place(out, beside)
    text = run.card if run.card is not None else describe(source, run, license)
    archive.write(out, run._replace(card=text))
    write_text(beside, text)
    return beside


def check_license(license: str, run: RunContents) -> None:
    """Raise an InputError unless a run can be given this licence."""
    if not LICENSE.fullmatch(license):
        raise InputError(
            f"--license: expected an identifier such as cc-by-4.0, found {license!r}; choose one "
            "of https://hf.co/docs/hub/repositories-licenses"
        )
    if run.card is not None and license != card.UNKNOWN:
        raise InputError(
            "--license: expected the folder of a run, found an exported run, which keeps its card; "
            "export the folder, or leave --license away and edit the card beside the file"
        )


def check_place(out: Path, beside: Path) -> None:
    """Raise an InputError if the card would replace what is no card of the export at `out`."""
    if beside == out:
        raise InputError(
            f"{out}: expected another ending than that of the model card, found .md; call it "
            f"{out.stem}.safetensors"
        )
    if not beside.exists():
        return
    with suppress(InputError, OSError, ValueError):
        if archive.read(out).card == beside.read_text(encoding="utf-8"):
            return
    raise InputError(
        f"{beside}: expected no file, or the model card of {out.name} as it was written, found "
        "another; move it, or choose another --out"
    )


def describe(source: Path, run: RunContents, license: str) -> str:
    """Return the model card of a run that was read from `source`, a folder or an older export.

    What is not known of its data is named on the terminal too.

    Raises:
        InputError: its evaluation is damaged.
    """
    if source.is_file():
        return card.model_card(run, Facts(missing=[NO_CARD], unmeasured=LOST, license=license))
    prints, rows = {HEALTHY: run.manifest["made_from"]}, []
    evaluated = source / "evaluation"
    if (evaluated / "results.csv").exists():
        prints |= read_manifest(evaluated)["settings"]["data"]
        rows = folder.read_results(source, run.fingerprint, run.manifest["made_from"])
    stores, missing = stores_beside(source, prints)
    facts = Facts(
        splits=[split for name, store in stores.items() for split in splits(name, store)],
        sources=[stated(name, store) for name, store in stores.items()],
        missing=missing,
        rows=rows,
        estimates=list(estimates(evaluated, run, rows)),
        license=license,
    )
    return card.model_card(run, facts)


def stores_beside(
    source: Path, prints: Mapping[str, str]
) -> tuple[dict[str, SliceStore], list[str]]:
    """Open the slices of a run's study by data set, and say of which there are none.

    `prints` are the fingerprints that the run knows them by.
    """
    stores, missing = {}, []
    for name, expected in prints.items():
        try:
            store = open_store(store_path(source.absolute().parents[1], name))
            found = store.manifest["fingerprint"]
            if found != expected:
                raise InputError(
                    f"{store.path}: expected the fingerprint {expected}, found {found}"
                )
            stores[name] = store
        except InputError as fault:
            print(f"warning: the card says little of the data set {name}: {fault}", file=sys.stderr)
            missing.append(NO_SLICES.format(name))
    return stores, missing


def splits(name: str, store: SliceStore) -> Iterator[DataSplit]:
    """Yield what is known of each split of a data set."""
    tables = {}
    for split in dict.fromkeys(record["split"] for record in store.records):
        records = [record for record in store.records if record["split"] == split]
        sites, rows = [], {}
        for record in records:
            image = file_of(store, record)
            row = row_of(image, record["subject"], tables)
            rows[record["subject"]] = row
            sites.append(people.site(image, row))
        yield DataSplit(
            dataset=name,
            split=split,
            scans=len(records),
            subjects=len(rows),
            slices=len(store.rows(split)),
            spacings_mm=[record["spacing_mm"] for record in records],
            sites=list(filter(None, sites)),
            ages=[age for row in rows.values() for age in ages(row)],
            sexes=[row["sex"] for row in rows.values() if "sex" in row],
        )


def row_of(
    image: Path, subject: str, tables: dict[Path, dict[str, dict[str, str]]]
) -> dict[str, str]:
    """Return what the table of participants says of a scan's subject; `tables` keeps those read."""
    root = people.root_of(image)
    if root is None:
        return {}
    if root not in tables:
        try:
            tables[root] = people.participants(root)
        except InputError as fault:
            print(f"warning: the card says less of the participants: {fault}", file=sys.stderr)
            tables[root] = {}
    return tables[root].get(subject) or tables[root].get(image.relative_to(root).parts[0], {})


def ages(row: Mapping[str, str]) -> Iterator[float]:
    """Yield the age in a row of a table of participants, if it is a number of years."""
    with suppress(KeyError, ValueError):
        if math.isfinite(age := float(row["age"])):
            yield age


def stated(name: str, store: SliceStore) -> Source:
    """Return what a data set says of itself, in a file above its first scan."""
    root = people.root_of(file_of(store, store.records[0])) if store.records else None
    fields = people.description(root) if root else {}
    said = [fields.get(one) for one in people.STATED]
    return Source(name, *said, preparations=screening.preparations(store))


def file_of(store: SliceStore, record: Mapping[str, str]) -> Path:
    """Return the file that a scan was read from."""
    return Path(os.path.normpath(store.path.absolute() / record["image"]))


def estimates(place: Path, run: RunContents, rows: Sequence[Result]) -> Iterator[Estimate]:
    """Yield AUPRC and AUROC of the run's chosen scores on test, with their intervals.

    Raises:
        InputError: the draws in `place` are missing or damaged.
    """
    for row in rows:
        chosen = run.chosen.get(card.CHOSEN.get(row.level, ""))
        if row.split == "test" and row.score == chosen and row.metric in card.METRIC_NAMES:
            name = f"{row.dataset}_test_draws.npz"
            integrity.check(place, "run python -m experiments.evaluate again", [name])
            draws = read_arrays(place / name, *EVALUATED)[f"{row.level}-{row.score}-{row.metric}"]
            which = row.dataset, row.level, "beyond", row.method, row.score, row.metric
            yield Estimate(*which, row.value, *bootstrap.interval(draws))
