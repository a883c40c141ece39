"""Is this a scan that the model may judge? Compare it with the scans that the model learned from.

`scan_statistics.describe` describes a scan, `summarize` keeps the range of the training scans, and
`warnings` says in words where another scan lies beyond it. A warning is a reason to look at the
scan, not a verdict; no warning is no proof that the scan is fit.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from cradl_jax.data.slices.scan_statistics import BINS, CELLS, DEPTHS_MM, Description
from cradl_jax.errors import InputError
from cradl_jax.intensity import CLIP
from cradl_jax.storage.schema import Count, NotNegative, Numbers, Record, with_names

AXES = ("left-right", "back-front", "bottom-top")
HEAD_ML = (300, 6000)  # of a small brain and of a large head with its neck
HEAD_MM = ((80, 210), (90, 260), (20, 330))  # the same, extents along R, A and S
FULLEST = 0.92  # share of its box that a head fills at most: an ellipsoid 0.52, a slab of it 0.79
BETTER = 0.9  # another orientation must lower the distance by this factor
INVERTED = -0.3  # a correlation below it says that bright and dark are exchanged
TURNS = {"nod": "nods", "tilt": "leans to a shoulder", "turn": "looks aside"}
"""How a head is turned about the axes left-right, back-front and bottom-top, in degrees."""
ONE_SCAN = {
    **{"contrast": 0.5, "appearance": 1.0, "shape": 0.6, "layers": 0.5},
    **{"nod": 20.0, "tilt": 15.0, "turn": 15.0},
}
"""Limits that a single training scan would set; see `summarize`."""


def _of_length(n: int) -> Any:
    """Declare a list of n values."""
    return Field(min_length=n, max_length=n)


Axes = Annotated[Numbers, _of_length(3)]
Ends = Annotated[Numbers, _of_length(2)]
EndsByAxis = Annotated[list[Axes], _of_length(2)]


class Means(TypedDict):
    """Mean histogram, pattern and layers of the training scans, see `Description`."""

    histogram: Annotated[Numbers, _of_length(BINS)]
    pattern: Annotated[Numbers, _of_length(2 * CELLS**3)]
    layers: Annotated[Numbers, _of_length(len(DEPTHS_MM) - 1)]


class Ranges(TypedDict):
    """Lowest and highest values to expect; of the last two along R, A and S."""

    brain_ml: Ends
    n_slices: Ends
    extent_mm: EndsByAxis
    spacing_mm: EndsByAxis


class Reference(Record):
    """What the training scans look like; plain values, for JSON.

    Attributes:
        n: number of training scans.
        means: of all of them.
        limits: largest distance from the means to expect, see `ONE_SCAN`.
        ranges: lowest and highest values to expect.
    """

    n: Count
    means: Means
    limits: Annotated[dict[str, NotNegative], with_names(ONE_SCAN)]
    ranges: Ranges


def summarize(descriptions: Sequence[Description]) -> Reference:
    """Summarize n training scans; the fewer there are, the wider limits and ranges.

    A limit is max + (0.5 + 4/n) * (max - median) + one/n, over the distances of each scan from the
    mean of the others (leave-one-out), and with `ONE_SCAN` as one. A range goes from min - margin
    to max + margin, where margin = (0.5 + 2/n) * (max - min) + (0.1 + 0.6/n) * median.

    Raises:
        InputError: there is none.
    """
    n = len(descriptions)
    if not n:
        raise InputError("training scans: expected one or more, found none; name the training data")
    vectors = {
        name: np.array([getattr(scan, name) for scan in descriptions])
        for name in ("histogram", "pattern", "layers")
    }
    sums = {name: values.sum(0) for name, values in vectors.items()}
    left_out = []
    for scan in range(n):
        own = {name: values[scan] for name, values in vectors.items()}
        others = {name: (sums[name] - own[name]) / max(n - 1, 1) for name in own}
        left_out.append(_distances(own, others if n > 1 else own))
    limits = {}
    for name, one in ONE_SCAN.items():
        values = np.array([distances[name] for distances in left_out])
        limit = values.max() + (0.5 + 4 / n) * (values.max() - np.median(values)) + one / n
        limits[name] = round(float(limit), 4)
    ranges = {}
    for name in ("brain_ml", "n_slices", "extent_mm", "spacing_mm"):
        values = np.array([getattr(scan, name) for scan in descriptions])
        margin = (0.5 + 2 / n) * np.ptp(values, 0) + (0.1 + 0.6 / n) * np.median(values, 0)
        ends = np.maximum(values.min(0) - margin, 0), values.max(0) + margin
        ranges[name] = [end.round(3).tolist() for end in ends]
    means = {name: (total / n).round(5).tolist() for name, total in sums.items()}
    return Reference.model_validate({"n": n, "means": means, "limits": limits, "ranges": ranges})


def warnings(scan: Description, reference: Reference) -> list[str]:
    """Say in sentences what makes a scan unlike the training scans; none if nothing does.

    - Orientation: the file does not state it, see `Description.oriented`.
    - Not a head: the volume, an extent or the filled share of the box lies beyond `HEAD_ML`,
      `HEAD_MM` or `FULLEST`, and beyond the training scans' range too. Otherwise the volume: above
      the range there may be a skull, below it the brain is incomplete.
    - Axes: one of the other 23 orientations, left and right aside (a head is nearly symmetric),
      has a distance to the training scans' mean pattern below `BETTER` times the scan's own.
    - Grid: the spacing or else the number of slices lies outside the range.
    - Contrast: the earth mover's distance between the histograms lies beyond its limit; or, where
      none of the above puts the brains out of line, 1 - the correlation of the mean brightness
      over the pattern's cells ("appearance").
    - Pose: the head is turned about an axis beyond the limit, where neither the size nor the axes
      nor an inverted contrast (a correlation below `INVERTED`) hides how it stands.
    - Skull: the largest difference of a layer's brightness lies beyond its limit, and the contrast
      is not inverted (a correlation below `INVERTED`).
    - Shape: the volume of brain that is here and not in the mean pattern or the other way round,
      as a share of the mean's, lies beyond its limit, and there is no other warning.
    """
    distances = _distances(scan._asdict(), reference.means)
    beyond = {name: distances[name] > limit for name, limit in reference.limits.items()}
    misplaced = [_size(scan, reference), _axes(scan, reference)]
    beyond["appearance"] &= not any(misplaced)
    inverted = beyond["appearance"] and 1 - distances["appearance"] < INVERTED
    sentences = [
        *misplaced,
        None if any(misplaced) or inverted else _pose(distances, reference.limits),
        None if scan.oriented else UNSTATED,
        _grid(scan, reference),
        _inverted(distances) if inverted else _contrast(distances, beyond, reference.limits),
        SKULL if beyond["layers"] and not inverted else None,
    ]
    if not any(sentences) and beyond["shape"]:
        sentences = [SHAPE]
    return [sentence for sentence in sentences if sentence]


def unlike_the_others(scans: Sequence[Description]) -> dict[int, list[str]]:
    """Say which of the training scans are unlike the others, and what makes them so.

    A forward search, since several may be unlike in several ways and would hide one another: the
    half closest to the scans' median is the reference at first, and takes in every scan of which
    there is no warning, until none is left. At least half of the scans must be alike.

    Returns:
        Warnings by the scan's number, only of scans that have some.
    """
    vectors = ("histogram", "pattern", "layers")
    middle = {v: np.median([getattr(scan, v) for scan in scans], axis=0) for v in vectors}
    distances = [_distances(scan._asdict(), middle) for scan in scans]
    strangeness = [max(d[name] / one for name, one in ONE_SCAN.items()) for d in distances]
    alike, taken = set(), set(map(int, np.argsort(strangeness)[: (len(scans) + 1) // 2]))
    found: list[list[str]] = []
    while alike != taken:
        alike = taken
        reference = summarize([scans[number] for number in sorted(alike)])
        found = [warnings(scan, reference) for scan in scans]
        taken = alike | {number for number, sentences in enumerate(found) if not sentences}
    return {number: sentences for number, sentences in enumerate(found) if sentences}


def background(value: float | None) -> list[str]:
    """Say that a scan's background is not exactly 0, see `Volume.background`; nothing if it is."""
    return [] if value is None else [BACKGROUND.format(value)]


BACKGROUND = (
    "The background is not exactly 0 but, throughout or nearly, {:.3g}; it was set to 0, and the "
    "intensities are differences from it. Check the brain extraction."
)
UNSTATED = (
    "The file does not say how the head lies (no qform or sform code, or an identity matrix), so "
    "that slices may be cut along another axis, or left and right be swapped; check the "
    "orientation, or convert the scan again from DICOM."
)
SKULL = (
    "From the surface inward, the brightness is unlike that of the training scans' brains; check "
    "the brain extraction: skull or other tissue may be left, or too much cut away."
)
SHAPE = (
    "The brain has another shape than those of the training scans; check the brain extraction, "
    "and that the scan covers the whole brain."
)


def _size(scan: Description, reference: Reference) -> str | None:
    low, high = reference.ranges["brain_ml"]
    shortest, longest = reference.ranges["extent_mm"]
    filled = scan.brain_ml * 1000 / max(float(np.prod(scan.extent_mm)), 1e-6)
    bounds = [(scan.brain_ml, low, high, *HEAD_ML)]
    bounds += [
        (mm, *ends, *head)
        for mm, *ends, head in zip(scan.extent_mm, shortest, longest, HEAD_MM, strict=True)
    ]
    if filled > FULLEST or not all(min(a, c) <= x <= max(b, d) for x, a, b, c, d in bounds):
        return (
            f"This does not look like a head: {scan.brain_ml:,.0f} ml that measure "
            f"{_lengths(scan.extent_mm)} mm and fill {filled:.0%} of that box; check that the file "
            "is a brain scan and that the voxel size in its header is right."
        )
    if low <= scan.brain_ml <= high:
        return None
    advice = (
        "check that the scan covers the whole brain and that none was cut away."
        if scan.brain_ml < low
        else "it may be a head rather than a brain; if the skull, the eyes or the neck are "
        "visible, predict it with --prepare, or extract the brain first (HD-BET, SynthStrip)."
    )
    return (
        f"The brain has {scan.brain_ml:,.0f} ml, usual for the training scans are {low:,.0f} to "
        f"{high:,.0f} ml: {advice}"
    )


def _axes(scan: Description, reference: Reference) -> str | None:
    mean = _cubes(reference.means["pattern"])
    own, *others = (
        (float(np.abs(turned - mean).sum()), order, flipped)
        for turned, order, flipped in _turned(_cubes(scan.pattern))
    )
    distance, order, flipped = min(others)
    if distance >= BETTER * own[0]:
        return None
    looks = [
        f"what the file calls {AXES[axis]} looks like {AXES[number]}"
        for number, axis in enumerate(order)
        if number != axis
    ] or [f"{name} looks reversed" for name, flip in zip(AXES, flipped, strict=True) if flip]
    return f"The axes look swapped or reversed: {', '.join(looks)}; check the scan's orientation."


def _pose(distances: dict, limits: Mapping[str, float]) -> str | None:
    beyond = [name for name in TURNS if distances[name] > limits[name]]
    if not beyond:
        return None
    found = ", ".join(
        f"{TURNS[name]} by about {distances[name]:.0f} degrees (usual up to {limits[name]:.0f})"
        for name in beyond
    )
    return (
        f"Against the training scans the head {found}; scores at each position lose much by that: "
        "align the scan with those, e.g. with experiments.prepare or predict --prepare."
    )


def _grid(scan: Description, reference: Reference) -> str | None:
    low, high = np.array(reference.ranges["spacing_mm"])
    if ((scan.spacing_mm < low) | (scan.spacing_mm > high)).any():
        return (
            f"The voxels measure {_lengths(scan.spacing_mm)} mm, usual for the training scans are "
            f"{_lengths(low)} to {_lengths(high)} mm: slices that are sharper or coarser than "
            "those can look abnormal."
        )
    low, high = reference.ranges["n_slices"]
    if low <= scan.n_slices <= high:
        return None
    return (
        f"The brain spans {scan.n_slices} axial slices, usual for the training scans are {low:.0f} "
        f"to {high:.0f}; check that the scan covers the whole brain and that its slices are axial."
    )


def _inverted(distances: dict) -> str:
    return (
        "The contrast looks inverted: the scan is bright where the training scans are dark "
        f"(correlation in space {1 - distances['appearance']:.2f}); check that it is of "
        "their contrast."
    )


def _contrast(distances: dict, beyond: dict, limits: Mapping[str, float]) -> str | None:
    if not (beyond["contrast"] or beyond["appearance"]):
        return None
    found = [
        f"histogram distance {distances['contrast']:.2f}, usual up to {limits['contrast']:.2f}",
        f"correlation in space {1 - distances['appearance']:.2f}, usual from "
        f"{1 - limits['appearance']:.2f}",
    ]
    told = [
        text for text, name in zip(found, ("contrast", "appearance"), strict=True) if beyond[name]
    ]
    return (
        "The brightness of the brain is distributed unlike in the training scans "
        f"({'; '.join(told)}): another sequence, scanner or preprocessing can look abnormal "
        "everywhere."
    )


def _lengths(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)


def _distances(scan: Mapping[str, Any], means: Mapping[str, Any]) -> dict[str, float]:
    """Return how far a scan's histogram, pattern and layers are from means; see `warnings`."""
    moved = np.cumsum(np.subtract(scan["histogram"], means["histogram"]))
    layers = np.subtract(scan["layers"], means["layers"])
    (brain, light), (mean_brain, mean_light) = (_cubes(x["pattern"]) for x in (scan, means))
    inside = (brain > 0.5) & (mean_brain > 0.5)
    here, there = light[inside] / brain[inside], mean_light[inside] / mean_brain[inside]
    defined = len(here) > 1 and here.std() > 0 and there.std() > 0
    return {
        "contrast": float(np.abs(moved).sum()) * 2 * CLIP / BINS,
        "appearance": 1 - float(np.corrcoef(here, there)[0, 1]) if defined else 1.0,
        "shape": float(np.abs(brain - mean_brain).sum() / max(mean_brain.sum(), 1e-6)),
        "layers": float(np.abs(layers).max()),
        **dict(zip(TURNS, np.abs(_turned_by(scan, means)), strict=True)),
    }


def _turned_by(scan: Mapping[str, Any], means: Mapping[str, Any]) -> list[float]:
    """Return by how many degrees a pattern is turned about R, A and S against the mean pattern.

    To first order (Lucas and Kanade, 1981): least squares over how the mean changes when it is
    turned, shifted, stretched along an axis, or brighter. Beyond ten degrees it tells too little.
    """
    mean = _cubes(means["pattern"])
    places = np.indices((CELLS,) * 3)[:, None] - (CELLS - 1) / 2
    slopes = np.asarray(np.gradient(mean, axis=(1, 2, 3)))
    changes = [
        *np.deg2rad(np.cross(slopes, places, axis=0)),
        *slopes,
        *(slopes * places),
        mean * [[[[0]]], [[[1]]]],
    ]
    columns = np.stack([change.ravel() for change in changes], 1)
    found, *_ = np.linalg.lstsq(columns, np.ravel(scan["pattern"]) - mean.ravel(), rcond=None)
    return found[:3].tolist()


def _cubes(pattern: Sequence[float]) -> np.ndarray:
    """[2, CELLS, CELLS, CELLS]: share of brain, and brightness."""
    return np.asarray(pattern).reshape(2, CELLS, CELLS, CELLS)


def _turned(cubes: np.ndarray) -> Iterator[tuple[np.ndarray, tuple, tuple]]:
    """Yield the pattern in 24 orientations, its own first, with the order of axes and flips."""
    for order in itertools.permutations(range(3)):
        for back, down in itertools.product((False, True), repeat=2):
            axes = [axis + 1 for axis, flip in ((1, back), (2, down)) if flip]
            turned = cubes.transpose(0, *(axis + 1 for axis in order))
            yield np.flip(turned, tuple(axes)), order, (False, back, down)
