"""A brain-extracted volume becomes normalized axial slices (paper, Section 4.1).

Slices are shown as a radiologist sees them with `imshow`: row 0 is anterior, column 0 is the
patient's right, so that mirroring left and right flips the last axis; slice 0 is the lowest.
"""

from dataclasses import dataclass

import numpy as np

from cradl_jax.errors import InputError
from cradl_jax.intensity import CLIP


@dataclass(frozen=True)
class SliceGeometry:
    """Where the slices of one volume lie, enough to map them back onto its voxels.

    A slice shows a square of `size * pixel_mm` millimeters around `center_mm`. Slice k of the
    `n_slices` is `slice_mm` thick; it is number `offset + k` of a stack centered on the volume.
    """

    shape: tuple[int, int, int]
    """Voxels of the volume along R, A and S."""
    spacing_mm: tuple[float, float, float]
    size: int
    pixel_mm: float
    slice_mm: float
    offset: int
    n_slices: int
    center_mm: tuple[float, float] = (0.0, 0.0)
    """Middle of the slices along R and A, from the volume's middle."""


@dataclass(frozen=True)
class Slices:
    """The slices of one volume, from the lowest to the highest."""

    images: np.ndarray
    """[n, size, size] float32, exactly 0 outside the brain."""
    brains: np.ndarray
    """[n, size, size] bool."""
    masks: np.ndarray
    """[n, size, size] bool, the anomaly annotation."""
    z_index: np.ndarray
    """[n] int, number of the slice in the stack before the end slices were dropped."""
    position: np.ndarray
    """[n] float32 in [0, 1], height within the brain: 0 its lowest slice, 1 its highest."""
    geometry: SliceGeometry


def slice_geometry(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    *,
    size: int,
    offset: int,
    slice_spacing_mm: float | None = None,
    pixel_mm: float | None = None,
    center_mm: tuple[float, float] = (0.0, 0.0),
) -> SliceGeometry:
    """Return the geometry of the slices of a volume.

    Args:
        shape: Voxels along R, A and S.
        spacing_mm: Distance of neighboring voxels along R, A and S.
        size: Height and width of a slice in pixels.
        offset: Number of slices left out at each end.
        slice_spacing_mm: Distance of neighboring slices; None keeps that of the volume.
        pixel_mm: Side of a pixel, so that volumes of any field of view show the brain at one
            scale; None makes the slice as wide as the volume.
        center_mm: See `plane_center`.

    Raises:
        InputError: If no slice is left.
    """
    right, anterior, _ = (float(n * s) for n, s in zip(shape, spacing_mm, strict=True))
    slice_mm = float(slice_spacing_mm or spacing_mm[2])
    stack = int(shape[2] * spacing_mm[2] / slice_mm + 1e-3)
    if stack <= 2 * offset:
        raise InputError(
            f"expected more than {2 * offset} axial slices, because {offset} are left out at each "
            f"end, found {stack} of {slice_mm:g} mm; lower the offset or check the scan's axes"
        )
    (x, y, z), (dx, dy, dz) = map(int, shape), map(float, spacing_mm)
    return SliceGeometry(
        shape=(x, y, z),
        spacing_mm=(dx, dy, dz),
        size=size,
        pixel_mm=pixel_mm or max(right, anterior) / size,
        slice_mm=slice_mm,
        offset=offset,
        n_slices=stack - 2 * offset,
        center_mm=center_mm,
    )


def plane_center(
    brain: np.ndarray, spacing_mm: tuple[float, float, float], side_mm: float
) -> tuple[float, float]:
    """Find the middle of slices of `side_mm`, along R and A, from the volume's middle in mm.

    It is the volume's middle where the slice is as wide as the volume or wider. Where the volume is
    cropped it is the middle of the box of `brain` ([X, Y, Z] bool, true somewhere), or, if the box
    is wider than the slice, the brain's center of mass, which a speck far away hardly moves.
    """
    plane, center = np.count_nonzero(brain, axis=2), []
    for counts, step in ((plane.sum(1), spacing_mm[0]), (plane.sum(0), spacing_mm[1])):
        edges = (np.arange(len(counts) + 1) - len(counts) / 2) * step
        layers, widest = np.flatnonzero(counts), side_mm + 1e-3 * step
        low, high = edges[layers[0]], edges[layers[-1] + 1]
        if len(counts) * step <= widest:
            center.append(0.0)
        elif high - low <= widest:
            center.append(float(low + high) / 2)
        else:
            center.append(float(np.average(edges[:-1] + step / 2, weights=counts)))
    return tuple(center)


def moments(data: np.ndarray, brain: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of `data` [X, Y, Z] over the voxels of `brain`."""
    voxels = data[brain]
    mean = voxels.mean(dtype=np.float64)
    return float(mean), float((voxels - np.float32(mean)).std(dtype=np.float64))


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
    data: np.ndarray, mask: np.ndarray | None, spacing_mm: tuple[float, float, float], **settings
) -> tuple[Slices, float, float]:
    """Return the normalized slices of a brain-extracted volume and its `moments` (Section 4.1).

    See `slice_volume` for the arguments; the brain is where `data` is not 0.

    Raises:
        InputError: If no slice is left.
    """
    brain = data != 0
    mean, std = moments(data, brain)
    score = normalize(data, brain, mean, std)
    return slice_volume(score, brain, mask, spacing_mm, **settings), mean, std


def slice_volume(
    data: np.ndarray,
    brain: np.ndarray,
    mask: np.ndarray | None,
    spacing_mm: tuple[float, float, float],
    *,
    pixel_mm: float | None = None,
    **settings,
) -> Slices:
    """Cut a volume into axial slices of `size` x `size` pixels, keeping the aspect ratio in mm.

    A pixel is the mean of the brain's voxels over its area (and over the slice's thickness, if the
    stack is resampled). It belongs to the brain, or to the mask, if that covers half of it or more.

    Args:
        data: [X, Y, Z] float32 along R, A and S, 0 outside the brain.
        brain: [X, Y, Z] bool, true somewhere.
        mask: [X, Y, Z] bool, or None for a healthy volume.
        spacing_mm: Distance of neighboring voxels.
        pixel_mm: Side of a pixel, the slices around `plane_center`; None shows the whole volume.
        **settings: `size`, `offset` and `slice_spacing_mm`, see `slice_geometry`.

    Raises:
        InputError: If no slice is left.
    """
    if pixel_mm:
        settings["center_mm"] = plane_center(brain, spacing_mm, settings["size"] * pixel_mm)
    geometry = slice_geometry(data.shape, spacing_mm, pixel_mm=pixel_mm, **settings)
    coverage = _area_means(brain, geometry)
    brains = coverage >= 0.5
    images = np.zeros_like(coverage)
    np.divide(_area_means(data, geometry), coverage, out=images, where=brains)
    np.clip(images, data.min(), data.max(), out=images, where=brains)  # of rounding
    masks = np.zeros_like(brains) if mask is None else _area_means(mask, geometry) >= 0.5
    z_index = geometry.offset + np.arange(geometry.n_slices)
    return Slices(images, brains, masks, z_index, _position(brain, z_index, geometry), geometry)


def overlap(
    n_in: int, spacing_in: float, n_out: int, spacing_out: float, shift: float = 0.0
) -> np.ndarray:
    """Return [n_out, n_in] float32: the share of an output cell that each input cell covers.

    The center of the output cells lies `shift` beyond that of the input cells. A row sums to 1
    where the input covers the cell.
    """
    edges_in = (np.arange(n_in + 1) - n_in / 2) * spacing_in
    edges_out = (np.arange(n_out + 1) - n_out / 2) * spacing_out + shift
    upper = np.minimum(edges_out[1:, None], edges_in[None, 1:])
    lower = np.maximum(edges_out[:-1, None], edges_in[None, :-1])
    return (np.clip(upper - lower, 0, None) / spacing_out).astype(np.float32)


def _area_means(volume: np.ndarray, geometry: SliceGeometry) -> np.ndarray:
    """Return [n, size, size] float32: means of `volume` over each pixel, 0 beyond its edge."""
    (width, height, depth), (right, anterior, superior) = geometry.shape, geometry.spacing_mm
    stack = geometry.n_slices + 2 * geometry.offset
    middle = geometry.center_mm
    columns = overlap(width, right, geometry.size, geometry.pixel_mm, middle[0])[::-1]
    rows = overlap(height, anterior, geometry.size, geometry.pixel_mm, middle[1])[::-1]
    kept = slice(geometry.offset, geometry.offset + geometry.n_slices)
    layers = overlap(depth, superior, stack, geometry.slice_mm)[kept]
    columns, rows, volume = (
        np.ascontiguousarray(x, dtype=np.float32) for x in (columns, rows, volume.T)
    )  # other strides would keep the products from BLAS
    return np.tensordot(layers, rows @ volume @ columns.T, axes=1)


def _position(brain: np.ndarray, z_index: np.ndarray, geometry: SliceGeometry) -> np.ndarray:
    """Return [n] float32: height of each slice between the brain's lowest and highest layer."""
    layers = np.flatnonzero(brain.any(axis=(0, 1)))
    stack = geometry.n_slices + 2 * geometry.offset
    layer_mm = (layers[[0, -1]] + 0.5 - geometry.shape[2] / 2) * geometry.spacing_mm[2]
    slice_mm = (z_index + 0.5 - stack / 2) * geometry.slice_mm
    height = (slice_mm - layer_mm[0]) / max(layer_mm[1] - layer_mm[0], geometry.spacing_mm[2])
    return np.clip(height, 0, 1).astype(np.float32)
