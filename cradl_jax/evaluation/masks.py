"""Label-free thresholds of a map, from healthy validation scans, for the mask of a new scan.

`at_rates` over all pixels of a slice, as the paper counts, lets a twentieth of all pixels pass,
which is a fifth of a brain. These thresholds are over the brain alone, by the share of its voxels
that lies above, by volume, or by component.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappush, heappushpop
from math import ceil
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import FailFast

from cradl_jax.evaluation import components
from cradl_jax.evaluation.thresholds import AtRates, at_rates
from cradl_jax.storage.schema import Count, Finite, NotNegative, Record, with_names

COMPONENT, VOLUME = "component", "volume"
BRAIN_RATES = ("0.001", "0.01", "0.05")
MASKS = (COMPONENT, VOLUME, *BRAIN_RATES)
"""Names of the thresholds, see `HealthyMap`."""
MEANING = {
    COMPONENT: "at most 1 in 20 healthy validation scans has a connected 1 ml above",
    VOLUME: "half of the healthy validation scans have at most 1 ml above",
    **{
        rate: f"{rate} of the brains of healthy validation scans lies above" for rate in BRAIN_RATES
    },
}
DEFAULT = "0.001"
"""The largest mask, of those that are nearly empty in healthy scans, by Dice on validation."""
NOTABLE_ML = 1.0
RARE = 0.05
"""Share of the healthy scans that may have a component of `NOTABLE_ML` above the threshold."""
KEPT = 5
"""Components a healthy scan, on average, whose masses are kept: the heaviest."""


class Mask(Record):
    """A threshold of a map, and what healthy validation scans have above it.

    Attributes:
        threshold: what lies above it is marked.
        masses: of the heaviest components above it of all scans, at most `KEPT` a scan on average,
            the heaviest first; see `components.Components`.
    """

    threshold: Finite
    masses: Annotated[list[NotNegative], FailFast()]


class HealthyMap(Record):
    """A map on healthy validation scans.

    Attributes:
        pixels: thresholds by the share of all pixels of the slices that lies above, as `at_rates`.
        masks: thresholds of masks. `component`: the lowest above which no more than one scan in 20
            has a component of 1 ml. `volume`: the lowest above which at least half of the scans
            have no more than 1 ml. `0.001`, `0.01`, `0.05`: above which this share of all the
            brains' voxels lies.
        n_scans: number of scans.
    """

    pixels: AtRates
    masks: Annotated[dict[str, Mask], with_names(MASKS)]
    n_scans: Count


class BrainMap(NamedTuple):
    """A map of a scan on its stack of slices.

    Attributes:
        heat: [n, H, W] float32, not negative, 0 outside the brain.
        brain: [n, H, W] bool.
        voxel_ml: volume of a pixel of a slice.
    """

    heat: np.ndarray
    brain: np.ndarray
    voxel_ml: float


Scans = Callable[[], Iterable[BrainMap]]
"""Called twice; yields the same scans each time."""


def find(scans: Scans, sizes: Sequence[int]) -> dict[str, Mask]:
    """Find the thresholds of masks on healthy scans, with memory for one scan at a time.

    Args:
        scans: as `Scans`.
        sizes: voxels of each scan's brain.

    Raises:
        InputError: a value is not finite, or there is no brain.
    """
    notable: list[float] = []
    appearances: list[float] = []

    def in_brains() -> Iterator[np.ndarray]:
        for scan in scans():
            yield scan.heat[scan.brain]  # `at_rates` refuses values that are not finite
            notable.append(_notable(scan))
            _keep_highest(appearances, scan, int(RARE * len(sizes)))

    at = at_rates(in_brains(), sum(sizes), BRAIN_RATES)
    at[VOLUME] = float(np.sort(notable)[(len(notable) - 1) // 2])
    at[COMPONENT] = appearances[0]
    heaviest: dict[str, np.ndarray] = {name: np.empty(0) for name in at}
    for scan in scans():
        for name, threshold in at.items():
            more = components.masses(scan.heat, threshold, scan.voxel_ml)
            heaviest[name] = np.concatenate([heaviest[name], more])
    kept = {name: np.sort(values)[::-1][: KEPT * len(sizes)] for name, values in heaviest.items()}
    return {name: Mask(threshold=at[name], masses=kept[name].tolist()) for name in at}


def _notable(scan: BrainMap) -> float:
    """Return the lowest value above which the brain of a scan has `NOTABLE_ML` or less."""
    more = int(NOTABLE_ML / scan.voxel_ml + 1e-9)
    values = scan.heat[scan.brain]
    return np.partition(values, -more - 1)[-more - 1] if more < values.size else 0.0


def _keep_highest(appearances: list[float], scan: BrainMap, rare: int) -> None:
    """Add a scan's `_appearance` to a heap of the `rare` + 1 highest ones.

    Above the lowest of these, at most `rare` scans have a component of `NOTABLE_ML`.
    """
    if len(appearances) <= rare:
        heappush(appearances, _appearance(scan, 0.0))
    else:
        heappushpop(appearances, _appearance(scan, appearances[0]))


def _appearance(scan: BrainMap, bound: float) -> float:
    """Return the lowest value, not below `bound`, above which no component has `NOTABLE_ML`."""
    voxels = ceil(NOTABLE_ML / scan.voxel_ml - 1e-9)
    if not components.holds(scan.heat, bound, voxels):
        return bound
    values = np.unique(scan.heat[scan.heat > bound])
    place = bisect_left(values, True, key=lambda x: not components.holds(scan.heat, x, voxels))
    return float(values[place])
