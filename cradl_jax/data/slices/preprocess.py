"""A brain-extracted volume becomes normalized axial slices (paper, Section 4.1).

Slices are shown as a radiologist sees them with `imshow`: row 0 is anterior, column 0 is the
patient's right, so that mirroring left and right flips the last axis; slice 0 is the lowest.
"""

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from cradl_jax.errors import InputError
from cradl_jax.intensity import CLIP

LEAST_BRAIN = 0.02
"""Share of the largest slice's brain that a slice needs to count. It leaves out blank slices and
the brain's tips, 3 cm2 and less of an adult's."""

FLAT = 1e-4
"""Spread of z-scores below which nothing but rounding is left."""

Span = Literal["brain", "volume"]
"""What a stack of slices spans: the brain, without slices that have less than `LEAST_BRAIN`; or the
whole volume, blank slices included, as Table 1 of the paper counts."""


@dataclass(frozen=True)
class SliceGeometry:
    """Where the slices of one volume lie, enough to map them back onto its voxels.

    Slice k of the `n_slices` is number `offset + k` of a stack. Places are measured along R, A and
    S from the lower edges of the voxel `first`, where the brain begins, so that they do not depend
    on how much empty space is around it.
    """

    shape: tuple[int, int, int]
    """Voxels of the volume along R, A and S."""
    spacing_mm: tuple[float, float, float]
    size: int
    pixel_mm: float
    slice_mm: float
    offset: int
    n_slices: int
    first: tuple[int, int, int]
    extent: tuple[int, int, int]
    """Voxels from the brain's beginning to its end, see `brain_box`."""
    center_mm: tuple[float, float, float]
    """Middle of the stack; that of the slices along R and A."""


@dataclass(frozen=True)
class Slices:
    """The slices of one volume, from the lowest to the highest."""

    images: np.ndarray
    """[n, size, size] float32, exactly 0 outside the brain."""
    brains: np.ndarray
    """[n, size, size] bool."""
    masks: np.ndarray
    """[n, size, size] bool, the anomaly annotation."""
    counted: np.ndarray
    """[n] bool: slices with brain enough, see `Span`; the others are not looked at."""
    z_index: np.ndarray
    """[n] int, number of the slice in the stack before the end slices were dropped."""
    position: np.ndarray
    """[n] float32 in [0, 1], height within the brain: 0 its lowest slice, 1 its highest."""
    geometry: SliceGeometry


def brain_box(brain: np.ndarray) -> tuple[slice, slice, slice]:
    """Find where the brain lies along R, A and S, in voxels.

    It begins and ends with a layer of at least `LEAST_BRAIN` of the largest one, so that specks
    which brain extraction left do not count.
    """
    plane, box = np.count_nonzero(brain, axis=2), []
    for counts in (plane.sum(1), plane.sum(0), np.count_nonzero(brain, axis=(0, 1))):
        layers = np.flatnonzero(counts >= LEAST_BRAIN * counts.max())
        box.append(slice(int(layers[0]), int(layers[-1]) + 1))
    return tuple(box)


def most_slices(
    layers: int,
    layer_mm: float,
    *,
    offset: int = 0,
    slice_spacing_mm: float | None = None,
    **_: object,
) -> int:
    """Return how many slices of so many layers of voxels remain if `offset` are left out at an end.

    Raises:
        InputError: If no slice is left.
    """
    slice_mm = slice_spacing_mm or layer_mm
    stack = int(layers * layer_mm / slice_mm + 1e-3)
    if stack <= 2 * offset:
        raise InputError(
            f"expected more than {2 * offset} axial slices, because {offset} are left out at each "
            f"end, found {stack} of {slice_mm:g} mm; lower the offset or check the scan's axes"
        )
    return stack - 2 * offset


def slice_geometry(
    brain: np.ndarray,
    spacing_mm: tuple[float, float, float],
    *,
    size: int,
    field_mm: float,
    offset: int = 0,
    slice_spacing_mm: float | None = None,
    span: Span = "brain",
    **_: object,
) -> SliceGeometry:
    """Return the geometry of the slices of a volume; they are centered on the brain.

    Args:
        brain: [X, Y, Z] bool along R, A and S, true somewhere.
        spacing_mm: Distance of neighboring voxels along R, A and S.
        size: Height and width of a slice in pixels.
        field_mm: The same in millimeters, so that every volume shows the brain at one scale.
        offset: Number of slices left out at each end of the stack.
        slice_spacing_mm: Distance of neighboring slices; None keeps that of the volume.
        span: What the stack spans.

    Raises:
        InputError: If no slice is left.
    """
    x, y, z = map(float, spacing_mm)
    box = brain_box(brain)
    first, extent = tuple(one.start for one in box), tuple(one.stop - one.start for one in box)
    bottom, layers = (-first[2], brain.shape[2]) if span == "volume" else (0, extent[2])
    n_slices = most_slices(layers, z, offset=offset, slice_spacing_mm=slice_spacing_mm)
    return SliceGeometry(
        shape=(brain.shape[0], brain.shape[1], brain.shape[2]),
        spacing_mm=(x, y, z),
        size=size,
        pixel_mm=field_mm / size,
        slice_mm=float(slice_spacing_mm or z),
        offset=offset,
        n_slices=n_slices,
        first=first,
        extent=extent,
        center_mm=(extent[0] * x / 2, extent[1] * y / 2, (bottom + layers / 2) * z),
    )


def moments(data: np.ndarray, brain: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of `data` [X, Y, Z] over the voxels of `brain`."""
    voxels = data[brain]
    mean = voxels.mean(dtype=np.float64)
    return float(mean), float((voxels - np.float32(mean)).std(dtype=np.float64))


def detrended(score: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Return clipped z-scores [X, Y, Z] without their linear trend over `brain` [X, Y, Z] bool.

    The trend is the least-squares plane through the brain, less its mean: what a receive coil
    leaves of its bias field, and any slope of the anatomy itself. Clipped, fluid and bright lesions
    count little more than tissue; a trend so steep that much of the brain is clipped is removed in
    part. Sums run over the brain's box, so that they are the same in any field of view; outside the
    brain nothing changes.
    """
    box = ndimage.find_objects(brain.view(np.uint8))[0]
    inside, level = brain[box], score[box]

    def along(volume: np.ndarray, *axes: int) -> np.ndarray:
        """Sum over the other axes."""
        return volume.sum(tuple(a for a in range(3) if a not in axes), dtype=np.float64)

    counts = [along(inside, a) for a in range(3)]
    places = [np.arange(length) for length in inside.shape]
    x = [p - p @ count / count.sum() for p, count in zip(places, counts, strict=True)]
    spread = np.diag([one**2 @ count for one, count in zip(x, counts, strict=True)])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        spread[a, b] = spread[b, a] = x[a] @ along(inside, a, b) @ x[b]
    slope = np.linalg.pinv(spread, hermitian=True) @ [x[a] @ along(level, a) for a in range(3)]
    plane = functools.reduce(np.add.outer, (one * g for one, g in zip(x, slope, strict=True)))
    flat = score.copy()
    np.subtract(level, plane.astype(np.float32), out=flat[box], where=inside)
    return flat


def normalize(
    data: np.ndarray, brain: np.ndarray, mean: float, std: float, clip: float = CLIP
) -> np.ndarray:
    """Return the z-score of `data` by its `moments`, [X, Y, Z] float32 (Section 4.1).

    It is clipped to +-`clip`, and exactly 0 outside the brain, [X, Y, Z] bool.
    """
    score = (data - np.float32(mean)) / np.float32(std)
    np.clip(score, -clip, clip, out=score)
    score[~brain] = 0
    return score


def normalized_slices(
    data: np.ndarray,
    mask: np.ndarray | None,
    spacing_mm: tuple[float, float, float],
    *,
    detrend: bool = False,
    **settings,
) -> tuple[Slices, float, float]:
    """Return the normalized slices of a brain-extracted volume and its `moments` (Section 4.1).

    With `detrend` the scores are `detrended` and normalized once more, which the paper does not do.
    See `slice_volume` for the other arguments; the brain is where `data` is not 0.

    Raises:
        InputError: If no slice is left.
    """
    brain = data != 0
    mean, std = moments(data, brain)
    score = normalize(data, brain, mean, std)
    if detrend:
        flat = detrended(score, brain)
        level, spread = moments(flat, brain)
        if spread > FLAT:  # a brain that is nothing but a trend keeps it
            score = normalize(flat, brain, level, spread)
    return slice_volume(score, brain, mask, spacing_mm, **settings), mean, std


def slice_volume(
    data: np.ndarray,
    brain: np.ndarray,
    mask: np.ndarray | None,
    spacing_mm: tuple[float, float, float],
    *,
    span: Span = "brain",
    **settings,
) -> Slices:
    """Cut a volume into axial slices of `size` x `size` pixels, keeping the aspect ratio in mm.

    A pixel is the mean of the brain's voxels over its area (and over the slice's thickness, if the
    stack is resampled). It belongs to the brain, or to the mask, if that covers half of it or more.
    Empty space around the brain changes no bit of the images, unless the stack spans the volume.

    Args:
        data: [X, Y, Z] float32 along R, A and S, 0 outside the brain.
        brain: [X, Y, Z] bool, true somewhere.
        mask: [X, Y, Z] bool, or None for a healthy volume.
        spacing_mm: Distance of neighboring voxels.
        span: What the stack spans.
        **settings: `size`, `field_mm`, `offset` and `slice_spacing_mm`, see `slice_geometry`.

    Raises:
        InputError: If no slice is left.
    """
    geometry = slice_geometry(brain, spacing_mm, span=span, **settings)
    coverage = _area_means(brain, geometry)
    brains = coverage >= 0.5
    images = np.zeros_like(coverage)
    np.divide(_area_means(data, geometry), coverage, out=images, where=brains)
    np.clip(images, data.min(), data.max(), out=images, where=brains)  # of rounding
    masks = np.zeros_like(brains) if mask is None else _area_means(mask, geometry) >= 0.5
    pixels = np.count_nonzero(brains, axis=(1, 2))
    return Slices(
        images=images,
        brains=brains,
        masks=masks,
        counted=(pixels >= max(1, LEAST_BRAIN * pixels.max())) | (span == "volume"),
        z_index=geometry.offset + np.arange(geometry.n_slices),
        position=_position(geometry),
        geometry=geometry,
    )


def overlap(edges_in: np.ndarray, edges_out: np.ndarray) -> np.ndarray:
    """Return [n_out, n_in] float32: the share of an output cell that each input cell covers.

    Cells lie between neighboring edges, [n_in + 1] and [n_out + 1], which ascend evenly. A row sums
    to 1 where the input covers the cell.
    """
    upper = np.minimum(edges_out[1:, None], edges_in[None, 1:])
    lower = np.maximum(edges_out[:-1, None], edges_in[None, :-1])
    return (np.clip(upper - lower, 0, None) / (edges_out[1] - edges_out[0])).astype(np.float32)


def _area_means(volume: np.ndarray, geometry: SliceGeometry) -> np.ndarray:
    """Return [n, size, size] float32: means of `volume` over each pixel, 0 beyond its edge.

    Sums run over the box of what is not 0, so that they are the same in any field of view.
    """
    size, stack = geometry.size, geometry.n_slices + 2 * geometry.offset
    found = ndimage.find_objects((volume != 0).view(np.uint8))
    if not found:
        return np.zeros((geometry.n_slices, size, size), np.float32)
    pixel = (geometry.pixel_mm, geometry.pixel_mm, geometry.slice_mm)
    columns, rows, layers = (
        overlap(
            (np.arange(one.start, one.stop + 1) - first) * spacing,
            (np.arange(n + 1) - n / 2) * step + center,
        )
        for one, first, spacing, n, step, center in zip(
            *(found[0], geometry.first, geometry.spacing_mm),
            *((size, size, stack), pixel, geometry.center_mm),
            strict=True,
        )
    )
    kept = slice(geometry.offset, geometry.offset + geometry.n_slices)
    columns, rows, volume = (
        np.ascontiguousarray(x, dtype=np.float32)
        for x in (columns[::-1], rows[::-1], volume[found[0]].T)
    )  # other strides would keep the products from BLAS
    return np.tensordot(layers[kept], rows @ volume @ columns.T, axes=1)


def slice_layers(geometry: SliceGeometry) -> np.ndarray:
    """Return [n]: heights of the slices' centers in layers of voxels, 0 that of the first one."""
    number = np.arange(geometry.n_slices) - (geometry.n_slices - 1) / 2
    height_mm = geometry.center_mm[2] + number * geometry.slice_mm
    return height_mm / geometry.spacing_mm[2] - 0.5


def _position(geometry: SliceGeometry) -> np.ndarray:
    """Return [n] float32: height of each slice between the brain's lowest and highest layer."""
    height = slice_layers(geometry) / max(geometry.extent[2] - 1, 1)
    return np.clip(height, 0, 1).astype(np.float32)
