"""What methods and densities are called in settings, folders and results."""

import re
from collections.abc import Mapping
from typing import Any

CRADL = "cradl"
VAE = "vae"
VAES = (VAE, "cevae")
PAPER = (CRADL, *VAES)  # the methods of the paper
CUTPASTE, MAE = "cutpaste", "mae"
PRETEXTS = (CUTPASTE, MAE)  # other pretexts for the encoder; like CRADL they have densities alone
DAE = "dae"
RESTORERS = (DAE, "disyre")  # restore a slice from corruptions
FAE = "fae"  # reconstructs features of CRADL's encoder
RESIDUALS = (*RESTORERS, FAE)  # score by what they restore or reconstruct, and have no densities
METHODS = (*PAPER, *PRETEXTS, *RESIDUALS)
BASELINE = "baseline"  # beside the methods: what any of them must beat
OURS = (*METHODS, BASELINE)  # any other name is that of a foreign method, given by its maps
PATCHES = {"pixel": 1, "patch": 2}  # its Gaussians at each position, by the patches' side
DENSE, MEMORY = "dense", "memory"
OF_FEATURES = (DENSE, MEMORY)  # what models a network's features at each position
REC, REC_SCAN = "rec", "rec_scan"  # what a reconstruction differs by, in a slice and over slices
RESTORED = "restored"  # what an iterative restoration changed, by a VAE's ELBO as a prior
DISTANCES = frozenset({*OF_FEATURES, *PATCHES})
"""Maps of how far each position is from normal, in units of what is usual in the scan."""
LOCAL = DISTANCES | {REC_SCAN, RESTORED}
"""Maps averaged over slices, beyond the paper."""
FLOW = "flow"  # a RealNVP


def has_encoder(method: str) -> bool:
    """Return whether one of `METHODS` has representations of its own, which densities model."""
    return method not in RESIDUALS


def density_names(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the densities of representations, by the settings of a run's densities.

    They are gmm1, gmm2, ..., for mixtures of so many components, and flow unless it is left out.
    """
    mixtures = [f"gmm{number}" for number in settings["gmm"]["components"]]
    return [*mixtures, *([FLOW] if FLOW in settings else [])]


def names_of_features(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of what models features, by the settings of a run's densities."""
    return [name for name in OF_FEATURES if name == DENSE or name in settings]


def components_of(name: str) -> int | None:
    """Return K of the mixture called gmm<K>, None where that is no name of a mixture."""
    match = re.fullmatch(r"gmm(\d+)", name)
    return int(match[1]) if match else None


def is_density(score: str) -> bool:
    """Return whether a score is the NLL, or its gradient, of a density on representations."""
    return score == FLOW or components_of(score) is not None
