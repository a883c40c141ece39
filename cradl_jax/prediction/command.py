"""Predict many scans, one after another: the body of cradl-predict and experiments.predict."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path

import jax
from tqdm import tqdm

from cradl_jax.devices import processes
from cradl_jax.devices.machine import devices_in_words
from cradl_jax.errors import InputError
from cradl_jax.prediction import files
from cradl_jax.prediction.files import ScanResult
from cradl_jax.prediction.inputs import InputScan, find_scans, passed_over
from cradl_jax.prediction.raw import check_extract, preparation_like
from cradl_jax.runs import load_run
from cradl_jax.storage.files import require_writable

FAULTS = (ValueError, ArithmeticError, OSError, MemoryError)  # that end one scan, not the others


def predict(
    run: str,
    scan: str,
    out: str | None,
    score: str | None,
    heatmap: str | None,
    fpr: float,
    mask: str,
    smallest: float,
    prepare: bool,
    extract: str | None,
) -> int:
    """Predict all scans and write the results; return how many scans could not be used.

    Processes, where there are several, share the scans. The arguments are `cli.predict.OPTIONS`;
    None stands for the default.

    Raises:
        InputError: there is no such run, scan, score, heatmap, rate or mask, the folder cannot be
            written to, JAX finds no device, or scans cannot be prepared here.
    """
    check_extract(extract, prepare)
    place = Path(run).expanduser()
    beside = place if place.is_dir() else place.parent
    folder = Path(out).expanduser() if out else beside / "predictions"
    scans = find_scans(Path(scan).expanduser())
    loaded = load_run(place).using(score, heatmap, fpr, mask, smallest)
    if prepare:
        preparation_like(loaded.contents.thresholds.preparation, extract)
    processes.broadcast_from_first(lambda: require_writable(folder, "--out"))
    if processes.is_first():
        print(f"devices: {devices_in_words()}", flush=True)
    own = scans[jax.process_index() :: jax.process_count()]
    predict_one = partial(loaded.predict, prepare=prepare, extract=extract)
    in_turn = zip_longest(*processes.all_gather(predict_scans(predict_one, own, folder)))
    rows = [row for turn in in_turn for row in turn if row is not None]
    failed = sum(bool(row["error"]) for row in rows)
    if processes.is_first():
        files.write_table(folder / "summary.csv", rows)
        if others := passed_over(Path(scan).expanduser()):
            names = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
            print(f"passed over, since they are no volumes: {names} ({len(others)})")
        print(f"{len(rows) - failed} of {len(rows)} scans: {folder}\n{files.NOTICE}")
    return failed


def predict_scans(
    predict_one: Callable[[Path, str], ScanResult], scans: Sequence[InputScan], out: Path
) -> list[dict]:
    """Return the rows of summary.csv, with `error` where a scan could not be used."""
    rows = []
    for scan in tqdm(scans, "predict", unit="scan"):
        try:
            files.remove(out, scan)
            summary = predict_one(scan.image, scan.name).save(out)
            rows.append(files.overview_row(summary))
        except FAULTS as fault:
            error = str(fault) if isinstance(fault, InputError) else repr(fault)
            if str(scan.image) not in error:
                error = f"{scan.image}: {error}"
            tqdm.write(f"error: {error}", file=sys.stderr)
            rows.append({"scan": scan.name, "image": str(scan.image), "error": error})
        if processes.is_first():
            files.write_table(out / "summary.csv", rows)
    return rows
