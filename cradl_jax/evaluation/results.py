"""Results as a CSV file, and the scores chosen from them (Section 4.5)."""

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from cradl_jax.errors import InputError
from cradl_jax.names import CRADL, DENSE, OF_FEATURES, PRETEXTS, RESIDUALS, RESTORED, is_density
from cradl_jax.storage.files import replacing
from cradl_jax.storage.reading import check_file

METRICS = {"auprc": "AUPRC", "auroc": "AUROC", "dice": "best Dice (oracle)", "fpr95": "FPR95 ↓"}
LEVELS = {"slice": "detection", "voxel": "localization"}
COMPARISONS = {"full": "own scores", "radl": "densities", "beyond": "all scores"}


class Result(NamedTuple):
    """One row of results.csv: one metric of one method's score on one split.

    It lies in [0, 1], but for numbers of lesions and volumes in ml (`lesions.froc`). `level` is one
    of `LEVELS`, or, beyond the paper and on test alone, "scan" or "lesion".
    """

    seed: int
    method: str
    score: str
    dataset: str
    split: str
    level: str
    metric: str
    value: float


class Choice(NamedTuple):
    """What one score is chosen for (Section 4.5, Table 4).

    Attributes:
        dataset: the anomalous data set, on whose validation scans it is chosen.
        level: "slice" or "voxel".
        comparison: "full" (Sections 5.1 and 5.2), "radl" (Section 5.3), or "beyond" the paper; see
            `is_candidate`.
        method: one of `names.METHODS`, "baseline", or a foreign one.
    """

    dataset: str
    level: str
    comparison: str
    method: str


def write_csv(path: Path, rows: Iterable[Result]) -> None:
    """Write results.csv."""
    with replacing(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Result._fields)
        writer.writerows(rows)


def read_csv(path: Path) -> list[Result]:
    """Read the rows of a results.csv.

    Raises:
        InputError: no file, other columns than those of `Result`, or a seed or value no number.
    """
    check_file(path, "results of experiments.evaluate")
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.reader(file)
        header = tuple(next(reader, ()))
        if header != Result._fields:
            raise InputError(
                f"{path}: expected the columns {','.join(Result._fields)}, found "
                f"{','.join(header) or 'none'}; write it again with experiments.evaluate"
            )
        rows = []
        for cells in reader:
            try:
                seed, *names, value = cells
                rows.append(Result._make((int(seed), *names, float(value))))
            except (ValueError, TypeError):
                raise InputError(
                    f"{path}, line {reader.line_num}: expected {len(header)} cells with a whole "
                    f"number for seed and a number for value, found {','.join(cells)}"
                ) from None
    return rows


def is_candidate(comparison: str, method: str, score: str) -> bool:
    """Return whether a method may choose a score (Section 4.5).

    In the comparison "full", CRADL chooses among its densities and any other method among its own
    terms; in "radl" every method chooses among the densities on its representations. In "beyond",
    every score is a candidate, also one that the paper does not have, and a method of ours that the
    paper does not have chooses there, and in "radl" if it has an encoder.
    """
    if comparison == "beyond":
        return True
    if method in RESIDUALS or (method in PRETEXTS and comparison == "full"):
        return False
    densities = comparison == "radl" or method == CRADL
    return score not in (*OF_FEATURES, RESTORED) and is_density(score) == densities


def own_choice(chosen: Mapping[Choice, str], dataset: str, level: str, method: str) -> str:
    """Return the score that a method chose, "" if none.

    It is chosen as in the paper. A method that the paper does not have chooses among its densities,
    or among all scores if it has no encoder.
    """
    choices = (Choice(dataset, level, comparison, method) for comparison in COMPARISONS)
    return next((chosen[choice] for choice in choices if choice in chosen), "")


def of_encoders(chosen: Mapping[Choice, str]) -> dict[Choice, str]:
    """Return by which densities encoders are compared where a study has one of `names.PRETEXTS`.

    They are the one that each method chose in "radl", and as a comparison "dense" the dense one.
    """
    densities = {choice: score for choice, score in chosen.items() if choice.comparison == "radl"}
    if not any(choice.method in PRETEXTS for choice in densities):
        return {}
    return {
        choice._replace(comparison=comparison): name
        for choice, score in densities.items()
        for comparison, name in (("radl", score), (DENSE, DENSE))
    }


def select_scores(rows: Iterable[Result]) -> dict[Choice, str]:
    """Return the score of each choice: the best validation AUPRC, mean over seeds.

    Section 4.5: test results take no part. The first of equals wins; scores without a defined
    validation AUPRC cannot win, so that a data set without anomalous validation slices has none.
    """
    candidates: dict[Choice, dict[str, list[float]]] = {}
    for row in rows:
        if row.split == "val" and row.metric == "auprc" and not math.isnan(row.value):
            for comparison in COMPARISONS:
                if is_candidate(comparison, row.method, row.score):
                    choice = Choice(row.dataset, row.level, comparison, row.method)
                    candidates.setdefault(choice, {}).setdefault(row.score, []).append(row.value)
    return {
        choice: max(scores, key=lambda score: fmean(scores[score]))
        for choice, scores in candidates.items()
    }
