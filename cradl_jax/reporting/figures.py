"""The report's graphs: arrays in, matplotlib figures out, no global state of pyplot."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, product
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from cradl_jax.evaluation.metrics import OperatingPoints, in_memory, metrics_at, operating_points
from cradl_jax.names import BASELINE
from cradl_jax.reporting import paper

NORMAL, ANOMALOUS, INK, FAINT = "#3b6ea8", "#d1495b", "#2b2d33", "#9a9da6"
DASHED = (0, (4, 3))
COLORS = {
    **{"cradl": "#3b6ea8", "cevae": "#e08a1e", "vae": "#2a9d8f"},
    **{"cutpaste": "#c06c84", "mae": "#7b8794"},
    **{"dae": "#a63d40", "disyre": "#6a4c93", "fae": "#b5838d", "baseline": INK},
}
"""Of our methods, in order."""
FOREIGN = ("#8e5ea2", "#7a9a01", "#c2477f", "#8c6d46", "#00838f", "#b0a000")
"""Colors of foreign methods, by turns."""
KINDS = {
    "density": ("RADL, {}", 1.0, ""),
    "kl": ("KL-Div., {}", 0.4, ""),
    "best": ("best {}", 0.15, "////"),
    "beyond": ("{}", 1.0, ""),
}
CITED: dict[str, Any] = {
    "marker": "D",
    "color": "white",
    "markeredgecolor": INK,
    "markersize": 4.5,
    "ls": "",
}
Curve = tuple[np.ndarray, np.ndarray]  # x and y
PANELS = {"slice": "Detection (slices)", "voxel": "Localization (voxels)"}


class Bar(NamedTuple):
    """One bar of `comparison_bars`: test AUPRC in [0, 1], NaN where there is none.

    Attributes:
        level: "slice" or "voxel".
        dataset: whose group it belongs to.
        method: one of `names.METHODS`, "baseline", or a foreign one.
        kind: "density" (on representations), "kl" (KL divergence), "best" (own score), or "beyond"
            the paper (any score).
        value: its height.
        low: where its error bar begins.
        high: where it ends.
        cited: the paper's value.
    """

    level: str
    dataset: str
    method: str
    kind: str
    value: float
    low: float = np.nan
    high: float = np.nan
    cited: float = np.nan


def colors(methods: Iterable[str]) -> dict[str, str]:
    """Return the color of each method: ours, then foreign ones by name, and the baseline last."""
    found = set(methods)
    color_of = COLORS | dict(zip(sorted(found - COLORS.keys()), cycle(FOREIGN), strict=False))
    ordered = sorted(color_of, key=lambda method: method == BASELINE)
    return {method: color_of[method] for method in ordered if method in found}


def loss_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Draw training and validation loss over steps, the smallest validation loss marked.

    `history` holds the lines of metrics.jsonl: `step` and `train/loss`, `val/loss` or both.
    """
    figure, (axes,) = _figure(1, width=7.2, height=3.6)
    train, val = (
        np.array([(line["step"], line[key]) for line in history if key in line]).reshape(-1, 2)
        for key in ("train/loss", "val/loss")
    )
    axes.plot(*train.T, color=NORMAL, linewidth=1.4, label="training")
    if len(val):
        step, loss = val[np.argmin(val[:, 1])]
        axes.plot(*val.T, color=ANOMALOUS, linewidth=1.4, label="validation")
        kept = f"smallest: {loss:.4g} at step {step:,.0f}"
        axes.plot(step, loss, "o", color=ANOMALOUS, markersize=6, label=kept)
    _label(axes, "Loss", "step", "loss")
    axes.legend(frameon=False, fontsize=9)
    return figure


def score_histogram(scores: np.ndarray, anomalous: np.ndarray, title: str) -> Figure:
    """Draw how scores [N] are distributed among normal and anomalous slices, [N] bool.

    Shares are of each class. The middle 99 % set the range; the outermost bins hold the rest.
    """
    figure, (axes,) = _figure(1, width=7.2, height=3.4)
    low, high = np.percentile(scores, (0.5, 99.5))
    edges = np.linspace(low, high if high > low else low + 1, 51)
    for name, chosen, color in (
        ("normal", ~anomalous, NORMAL),
        ("anomalous", anomalous, ANOMALOUS),
    ):
        counts, _ = np.histogram(np.clip(scores[chosen], edges[0], edges[-1]), edges)
        share = counts / max(1, counts.sum())
        label = f"{name} ({counts.sum():,} slices)"
        axes.stairs(share, edges, fill=True, color=color, alpha=0.25)
        axes.stairs(share, edges, color=color, linewidth=1.4, label=label)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(bottom=0)
    _label(axes, title, "score (outermost bins hold the tails)", "share of the class")
    axes.legend(frameon=False, fontsize=9)
    return figure


def roc_and_pr(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], methods: Sequence[str]
) -> Figure:
    """Draw ROC and precision-recall curves of several (scores, boolean labels), by their names.

    `methods` holds the method of each curve, which gives its color; that of a baseline is dark. A
    curve without positives or without negatives does not exist and is left out.
    """
    color_of = colors(methods)
    figure, (roc, pr) = _figure(2, width=11, height=3.9)
    prevalence = np.nan
    for (name, pair), method in zip(curves.items(), methods, strict=True):
        points = operating_points(in_memory(*pair))
        metrics = metrics_at(points)
        prevalence = metrics["prevalence"]
        if np.isnan(metrics["auroc"]):
            continue
        roc_points, pr_points = _curves(points)
        style: dict[str, Any] = {
            "color": color_of[method],
            "linewidth": 1.5,
            "solid_joinstyle": "bevel",
        }
        label = f"{name}\nAUROC {metrics['auroc']:.3f}, AUPRC {metrics['auprc']:.3f}"
        roc.plot(*roc_points, label=label, **style)
        pr.plot(*pr_points, drawstyle="steps-pre", **style)
    chance: dict[str, Any] = {"color": FAINT, "linewidth": 1, "linestyle": DASHED}
    label = f"chance\nAUROC 0.500, AUPRC {prevalence:.3f}"
    roc.plot((0, 1), (0, 1), label=label, **chance)
    pr.plot((0, 1), (prevalence, prevalence), **chance)
    for axes in (roc, pr):
        axes.set(xlim=(0, 1), ylim=(0, 1.01))
    _label(roc, "Receiver operating characteristic", "false-positive rate", "true-positive rate")
    _label(pr, "Precision and recall", "recall", "precision")
    figure.legend(frameon=False, fontsize=8.5, loc="outside right upper", labelcolor=INK)
    return figure


def _curves(points: OperatingPoints) -> tuple[Curve, Curve]:
    """Return ROC (a corner where negatives lie between positives) and PR, thinned for drawing."""
    last = len(points.positives) - 1
    kept = np.concatenate([np.linspace(0, last, 2000), np.geomspace(1, last + 1, 500) - 1])
    kept = np.unique(kept.astype(int))
    true = np.cumsum(points.positives)
    false = points.above + points.tied
    before = (true - points.positives)[kept]
    recall = np.stack([before, true[kept]], 1).ravel() / true[-1]
    fpr = np.stack([points.above[kept], false[kept]], 1).ravel() / points.negatives
    precision = (true / (true + false))[kept]
    roc = np.concatenate([[0], fpr, [1]]), np.concatenate([[0], recall, [1]])
    pr = np.concatenate([[0], true[kept] / true[-1]]), np.concatenate([precision[:1], precision])
    return roc, pr


def spectrum(eigenvalues: np.ndarray, rank: float) -> Figure:
    """Draw the representations' covariance spectrum [D], largest first, and effective rank."""
    figure, (axes,) = _figure(1, width=7.2, height=3.4)
    share = eigenvalues / max(eigenvalues.sum(), np.finfo(np.float64).tiny)
    visible = share > 1e-9
    axes.plot(1 + np.flatnonzero(visible), share[visible], ".-", color=NORMAL, linewidth=1)
    axes.axvline(rank, color=ANOMALOUS, linewidth=1.2, linestyle=DASHED)
    axes.annotate(
        f"effective rank {rank:.1f} of {len(eigenvalues)}",
        (rank, 1),
        xycoords=("data", "axes fraction"),
        xytext=(6, -12),
        textcoords="offset points",
        color=ANOMALOUS,
        fontsize=9,
    )
    if visible.any():
        axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    _label(
        axes, "Representations: spectrum of the covariance", "dimension", "share of the variance"
    )
    return figure


def comparison_bars(
    bars: Sequence[Bar], prevalence: Mapping[tuple[str, str], float], errors: str = "error bar"
) -> Figure:
    """Draw Figure 2: AUPRC of densities, KL divergence and best own scores by data set.

    Args:
        bars: in any order; a panel a level.
        prevalence: of each (level, data set), the AUPRC of chance, dashed.
        errors: what the error bars span, for the legend.
    """
    levels = [level for level in PANELS if any(level == at for at, _ in prevalence)]
    color_of = colors(bar.method for bar in bars)
    styles = {
        (kind, method): _bar_style(kind, color)
        for kind, (method, color) in product(KINDS, color_of.items())
        if any((kind, method) == (bar.kind, bar.method) for bar in bars)
    }
    figure, panels = _figure(max(1, len(levels)), width=11, height=4.4)
    for axes, level in zip(panels, levels, strict=False):
        shares = {dataset: share for (at, dataset), share in prevalence.items() if at == level}
        _bar_groups(axes, [bar for bar in bars if bar.level == level], styles, shares)
        _label(axes, PANELS[level], "", "AUPRC")
        axes.set_xticks(range(len(shares)), shares, fontsize=10)
        axes.tick_params(axis="x", length=0)
        axes.set(xlim=(-0.55, len(shares) - 0.45), ylim=(0, None))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    handles: list[Artist] = [
        Patch(label=_bar_label(*which), **style) for which, style in styles.items()
    ]
    chance = Line2D([], [], color=INK, linewidth=1.2, linestyle=DASHED)
    chance.set_label("prevalence (chance)")
    handles.insert(1, chance)
    if any(np.isfinite(bar.cited) for bar in bars):
        handles.append(Line2D([], [], label="paper", **CITED))
    if any(np.isfinite(bar.low) for bar in bars):
        handles.append(Line2D([], [], color=INK, marker="|", markersize=11, ls="", label=errors))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=-(-len(handles) // 2) if len(handles) > 4 else 4,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )
    return figure


def pose_curves(curves: Mapping[tuple[str, str], Sequence[tuple[float, float, float]]]) -> Figure:
    """Draw AUPRC over how far scans are turned, and over how far they are shifted.

    `curves` holds (degrees, millimeters, AUPRC) by (level, name), several data sets one after the
    other, of which the mean is drawn.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")
    grid = figure.subplots(2, 2, squeeze=False, sharey="row")
    names = list(dict.fromkeys(name for _, name in curves))
    for row, (level, title) in zip(grid, PANELS.items(), strict=True):
        for axes, moving, still, unit in zip(row, (0, 1), (1, 0), ("degrees", "mm"), strict=True):
            for number, name in enumerate(names):
                points = np.array([p for p in curves[level, name] if p[still] == 0])
                at = np.unique(points[:, moving])
                mean = [points[points[:, moving] == x, 2].mean() for x in at]
                color = colormaps["tab10"](number)
                axes.plot(at, mean, "o-", color=color, markersize=4, label=name)
                axes.set_xticks(at)
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.set_ylim(bottom=0)
            _label(axes, f"{title}, {'turned' if moving == 0 else 'shifted'}", unit, "AUPRC")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def sweep_maps(maps: Mapping[tuple[str, str], Mapping[tuple[float, float], float]]) -> Figure:
    """Draw AUPRC by brightness and texture of an object, a panel a (level, name), on one scale.

    Each of `maps` holds the AUPRC by (brightness, texture).
    """
    names = list(dict.fromkeys(name for _, name in maps))
    levels = [level for level in PANELS if any(at == level for at, _ in maps)]
    figure = Figure(figsize=(2.3 * len(names) + 1.4, 2.4 * len(levels) + 0.5), layout="constrained")
    grid = figure.subplots(len(levels), len(names), squeeze=False, sharex=True, sharey=True)
    for (row, level), (column, name) in product(enumerate(levels), enumerate(names)):
        axes, values = grid[row, column], maps[level, name]
        across, up = (sorted({place[axis] for place in values}) for axis in (0, 1))
        image = np.array([[values[x, y] for x in across] for y in up])
        shown = axes.imshow(image, cmap="viridis", vmin=0, vmax=1, origin="lower", aspect="auto")
        for (y, x), value in np.ndenumerate(image):
            style = {"ha": "center", "va": "center", "fontsize": 7.5}
            axes.text(x, y, f"{100 * value:.0f}", color="white" if value < 0.6 else INK, **style)
        axes.set_xticks(range(len(across)), [f"{x:g}" for x in across])
        axes.set_yticks(range(len(up)), [f"{y:g}" for y in up])
        _label(axes, name if row == 0 else "", "brightness" if row == len(levels) - 1 else "", "")
        axes.grid(visible=False)
        if column == 0:
            axes.set_ylabel(f"{PANELS[level]}\ntexture", fontsize=9.5, color=INK)
        if column == len(names) - 1:
            figure.colorbar(shown, ax=axes, format=PercentFormatter(1, decimals=0))
    return figure


def _bar_groups(
    axes: Axes,
    bars: Sequence[Bar],
    styles: Mapping[tuple[str, str], dict[str, Any]],
    shares: Mapping[str, float],
) -> None:
    """Draw bars in the order of `styles` by (kind, method), a group a data set of `shares`."""
    places = {which: number - (len(styles) - 1) / 2 for number, which in enumerate(styles)}
    width = min(0.84 / max(1, len(styles)), 0.25)
    for group, (dataset, share) in enumerate(shares.items()):
        mine = [bar for bar in bars if bar.dataset == dataset]
        for bar in mine:
            which = bar.kind, bar.method
            x = group + places[which] * width
            axes.bar(x, bar.value, 0.86 * width, **styles[which])
            axes.vlines(x, bar.low, bar.high, color=INK, linewidth=1.2)
            axes.plot(x, bar.cited, **CITED)
        span = (group - 0.46, group + 0.46)
        axes.hlines(share, *span, color=INK, linewidth=1.2, linestyle=DASHED)
        if not mine:
            at: dict[str, Any] = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center"}
            axes.annotate("no score chosen", (group, share), color=FAINT, fontsize=9, **at)


def _bar_label(kind: str, method: str) -> str:
    name = paper.method_name(method)
    return name if method == "cradl" else KINDS[kind][0].format(name)


def _bar_style(kind: str, color: str) -> dict[str, Any]:
    _, strength, hatch = KINDS[kind]
    return {
        "facecolor": to_rgba(color, strength),
        "edgecolor": color,
        "linewidth": 1,
        "hatch": hatch,
    }


def _figure(panels: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of `panels` side by side, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    """Set titles and axis labels in one style, without frame or chart junk."""
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(x, fontsize=9.5, color=INK)
    axes.set_ylabel(y, fontsize=9.5, color=INK)
    axes.tick_params(labelsize=9, colors=INK, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(axis="y", color=FAINT, alpha=0.2, linewidth=0.8)
    axes.set_axisbelow(True)


def cut(volume: np.ndarray, at: Sequence[int]) -> list[np.ndarray]:
    """Cut a volume [X, Y, Z] through a voxel: axial, coronal and sagittal, [rows, columns] each."""
    return [np.take(volume, at[axis], axis).T for axis in (2, 1, 0)]


def planes(
    shown: Sequence[np.ndarray],
    outlines: Sequence[Mapping[str, np.ndarray]],
    aspects: Sequence[float],
) -> Figure:
    """Draw three planes of a scan, bottom up, with outlines over each.

    Args:
        shown: intensities, 0 outside the brain, see `cut`.
        outlines: by color, masks of the planes' shapes.
        aspects: height over width of a pixel.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained", facecolor="black")
    brain = np.concatenate([plane[plane != 0] for plane in shown])
    low, high = np.percentile(brain, (0.5, 99.5)) if brain.size else (0, 1)
    for axes, plane, marks, aspect in zip(
        figure.subplots(1, 3), shown, outlines, aspects, strict=True
    ):
        axes.imshow(plane, "gray", origin="lower", vmin=min(low, 0), vmax=high, aspect=aspect)
        for color, mask in marks.items():
            if mask.any():
                axes.contour(mask, [0.5], colors=color, linewidths=0.8)
        axes.set_axis_off()
    return figure
