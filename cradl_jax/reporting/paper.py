"""What the paper reports (Lüth et al. 2023, arXiv:2301.02126): its figures and its names of things.

Tables 2, 3 and 5 to 8 lie in paper_values.csv, as fractions of one; Tables 1 and 4 are below.

Only what can be read without doubt from the paper's text is here. The PDF from which it was taken
sets several scores of the VAE and of the ceVAE into one cell, and three things follow from Table 4:

- Tables 6 and 7 keep one row of the VAE's and one of the ceVAE's own three scores. It is combi
  (Table 6) and ELBO (Table 7): bold wherever Table 4 names that score, and nowhere else. The rows
  of KL-Div.-grad and Rec. (Table 6) and of KL-Div. and Rec. (Table 7) are lost and left out.
- The last rows of Table 8, KL-Div. and Rec. of a "VAE", are the VAE's: Table 4 names KL-Div. on
  BraTS for the VAE alone, and there it is bold. Those of the ceVAE are lost and left out.
- The last group of Table 6, printed as "VAE", is CRADL's: its best scores are those of Table 4.
"""

import csv
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from cradl_jax.errors import InputError
from cradl_jax.names import components_of

METHODS = {
    "cradl": "CRADL",
    "cevae": "ceVAE",
    "vae": "VAE",
    "cutpaste": "CutPaste",
    "mae": "MAE",
    "dae": "DAE",
    "disyre": "DISYRE",
    "fae": "FAE",
    "baseline": "Baseline",
}
SCORES = {
    "flow": "Norm. Flow",
    "elbo": "ELBO",
    "combi": "combi",
    "kl": "KL-Div.",
    "kl_grad": "KL-Div.-grad",
    "rec": "Rec.",
    "position": "Position",
    "area": "Brain area",
    "intensity": "|Intensity|",
    "dense": "Dense",
    "memory": "Memory of patches",
    "restored": "Restoration",
    "rec_scan": "Rec. over slices",
    "equalized": "Equalized intensity",
    "pixel": "Gaussian of pixels",
    "patch": "Gaussian of 2 × 2 pixels",
    "map": "Given map",
    "maximum": "Maximum of the map",
    "given": "Given score",
}
BY_METHOD = {"slice": 2, "voxel": 3}
BY_SCORE = {("voxel", "test"): 5, ("voxel", "val"): 6, ("slice", "test"): 7, ("slice", "val"): 8}


class Row(NamedTuple):
    """One figure of Tables 2, 3 or 5 to 8: mean and standard deviation of three seeds, in [0, 1].

    `score` is empty in Tables 2 and 3: Table 4 names it.
    """

    table: int
    split: str
    level: str
    method: str
    score: str
    dataset: str
    metric: str
    mean: float
    std: float


class Data(NamedTuple):
    """One split of a data set in Table 1; prevalences are shares of one."""

    scans: int
    slices: int
    anomalous_slices: float
    anomalous_voxels: float


DATA = {
    ("HCP Synth.", "test"): Data(49, 7105, 0.205, 0.00649),
    ("HCP Synth.", "val"): Data(49, 7105, 0.198, 0.00770),
    ("ISLES", "test"): Data(20, 2671, 0.366, 0.01140),
    ("ISLES", "val"): Data(8, 1069, 0.341, 0.01099),
    ("BraTS", "test"): Data(266, 35910, 0.490, 0.02427),
    ("BraTS", "val"): Data(20, 2700, 0.460, 0.01923),
}
DATA_SETS = tuple(dict.fromkeys(name for name, _ in DATA))

# Table 4: detection among own scores (Section 5.1) and densities (5.3), localization (5.2, 5.3).
_COLUMNS = (("slice", "full"), ("slice", "radl"), ("voxel", "full"), ("voxel", "radl"))
_TABLE_4 = {
    ("HCP Synth.", "cradl"): ("flow", "flow", "gmm8", "gmm8"),
    ("HCP Synth.", "vae"): ("elbo", "gmm8", "combi", "gmm8"),
    ("HCP Synth.", "cevae"): ("elbo", "flow", "combi", "gmm8"),
    ("BraTS", "cradl"): ("gmm1", "gmm1", "gmm2", "gmm2"),
    ("BraTS", "vae"): ("kl", "gmm8", "rec", "gmm4"),
    ("BraTS", "cevae"): ("elbo", "gmm1", "combi", "gmm1"),
    ("ISLES", "cradl"): ("gmm1", "gmm1", "gmm1", "gmm1"),
    ("ISLES", "vae"): ("elbo", "gmm8", "combi", "gmm1"),
    ("ISLES", "cevae"): ("elbo", "gmm1", "combi", "gmm1"),
}
SELECTION: Mapping[tuple[str, str, str, str], str] = {
    (dataset, level, comparison, method): score
    for (dataset, method), scores in _TABLE_4.items()
    for (level, comparison), score in zip(_COLUMNS, scores, strict=True)
}
"""Table 4: the score of each (dataset, level, comparison, method), as `results.Choice`."""


@cache
def rows() -> tuple[Row, ...]:
    """Return all figures of Tables 2, 3 and 5 to 8 that the paper's text gives without doubt."""
    with files("cradl_jax.reporting").joinpath("paper_values.csv").open(encoding="utf-8") as file:
        return tuple(
            Row._make((int(table), *names, float(mean), float(std)))
            for table, *names, mean, std in list(csv.reader(file))[1:]
        )


def check_names(names: Mapping[str, str]) -> None:
    """Refuse names of data sets, the values of a mapping, that the paper does not have.

    Raises:
        InputError: such a name.
    """
    for dataset, name in names.items():
        if name not in DATA_SETS:
            raise InputError(
                f"{dataset}: the paper has no data set '{name}'; expected one of "
                f"{', '.join(DATA_SETS)}, or nothing for a data set that is not the paper's"
            )


def method_name(method: str) -> str:
    """Return 'cevae' as the paper prints it: 'ceVAE'; other methods unchanged."""
    return METHODS.get(method, method)


def score_name(score: str) -> str:
    """Return 'gmm4' as the paper prints it: 'GMM 4'; other scores unchanged."""
    if components := components_of(score):
        return f"GMM {components}"
    return SCORES.get(score, score)
