"""The report's pictures of slices: arrays in, matplotlib figures out, no global state of pyplot."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cradl_jax.intensity import CLIP
from cradl_jax.reporting.figures import INK

GRAY = colormaps["gray"].with_extremes(bad="black")
CLAMP = 99.5  # percentile at which the colors of heatmaps saturate
WIDTH, GAP, MARGIN = 1.55, 0.03, 0.45  # of a slice, between slices, left of them, inches


def pixel_scores(
    images: np.ndarray,
    masks: np.ndarray,
    maps: Mapping[str, np.ndarray],
    labels: Sequence[str] = (),
) -> Figure:
    """Draw Figure 1b: a row a slice: image, annotation, then the pixel scores of each method.

    Args:
        images: [n, H, W] in [-1.5, 1.5], background exactly 0.
        masks: [n, H, W] bool.
        maps: by the name of the method, [n, H, W] each, non-negative. A column has one scale for
            all slices, from zero to its 99.5th percentile, so that slices can be compared.
        labels: of the slices, if any.
    """
    columns, strip = 2 + len(maps), 0.4
    figure, grid, window = _grid(images, len(images), columns, above=0.45, below=strip)
    images, masks = images[window], masks[window]
    for row, image, mask in zip(grid, images, masks, strict=True):
        _gray(row[0], image)
        _gray(row[1], image)
        _outline(row[1], mask)
    for axes, label in zip(grid[:, 0], labels, strict=False):
        axes.set_ylabel(label, fontsize=9, color=INK)
    for axes, title in zip(grid[0], ("slice", "annotation", *maps), strict=True):
        axes.set_title(title, fontsize=10, color=INK)
    inches = figure.get_figheight()
    for column, heat in zip(grid.T[2:], maps.values(), strict=True):
        top = max(float(np.percentile(heat, CLAMP)), float(np.finfo(np.float32).tiny))
        shown = [
            axes.imshow(one, cmap="inferno", vmin=0, vmax=top)
            for axes, one in zip(column, heat[window], strict=True)
        ]
        left, _, width, _ = column[0].get_position().bounds
        place = left + 0.1 * width, (strip - 0.14) / inches, 0.8 * width, 0.06 / inches
        bar = figure.colorbar(shown[0], cax=figure.add_axes(place), orientation="horizontal")
        bar.outline.set_visible(False)
        bar.set_ticks((0, top), labels=("0", f"{top:.2g}"))
        bar.ax.tick_params(labelsize=8, colors=INK, length=0)
    return figure


def anomaly_examples(sets: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Draw Figure 4: slices of each data set, and below each the same with its annotation outlined.

    Args:
        sets: by name, images [n, H, W] in [-1.5, 1.5] and masks [n, H, W] bool; the first six of
            each are shown.
    """
    images = np.concatenate([images for images, _ in sets.values()])
    columns = min(6, max(len(images) for images, _ in sets.values()))
    figure, grid, window = _grid(images, 2 * len(sets), columns, group=2)
    for number, (name, (images, masks)) in enumerate(sets.items()):
        plain, outlined = grid[2 * number], grid[2 * number + 1]
        plain[0].set_ylabel(name, fontsize=11, color=INK)
        outlined[0].set_ylabel("annotation", fontsize=9, color=INK)
        shown = zip(plain, outlined, images[window], masks[window], strict=False)
        for top, below, image, mask in shown:
            _gray(top, image)
            _gray(below, image)
            _outline(below, mask)
    return figure


def _grid(
    images: np.ndarray,
    rows: int,
    columns: int,
    group: int = 10_000,
    above: float = GAP,
    below: float = GAP,
) -> tuple[Figure, np.ndarray, tuple[slice, ...]]:
    """Return axes [rows, columns] and the window [:, y, x] of `images` that holds all brains.

    Every `group` rows are set apart from the next; `above` and `below` are inches for text.
    """
    inside = np.any(images != 0, axis=0)
    window = [slice(None)]
    for axis in (1, 0):
        at = np.flatnonzero(inside.any(axis)) if inside.any() else [0, inside.shape[1 - axis]]
        window.append(slice(max(0, at[0] - 2), at[-1] + 3))
    pixels_high, pixels_wide = inside[tuple(window[1:])].shape
    height = WIDTH * pixels_high / pixels_wide
    tops = [above + row * (height + GAP) + 5 * GAP * (row // group) for row in range(rows)]
    total = MARGIN + columns * (WIDTH + GAP), tops[-1] + height + below
    figure = Figure(figsize=total)
    grid = np.empty((rows, columns), object)
    for row, column in np.ndindex(*grid.shape):
        left, bottom = MARGIN + column * (WIDTH + GAP), total[1] - tops[row] - height
        place = left / total[0], bottom / total[1], WIDTH / total[0], height / total[1]
        grid[row, column] = axes = figure.add_axes(place)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure, grid, tuple(window)


def _gray(axes: Axes, image: np.ndarray) -> None:
    # Exactly zero is background, which a normalized image would show as mid-gray.
    axes.imshow(np.ma.masked_equal(image, 0), cmap=GRAY, vmin=-CLIP, vmax=CLIP)


def _outline(axes: Axes, mask: np.ndarray) -> None:
    if mask.any():
        axes.contour(mask, levels=[0.5], colors=["#00d0ff"], linewidths=1.3)
