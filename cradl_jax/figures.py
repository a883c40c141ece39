"""The report's figures: arrays in, matplotlib figures out, no global state of pyplot."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cradl_jax.data.preprocess import CLIP
from cradl_jax.metrics import OperatingPoints, in_memory, metrics_at, operating_points

NORMAL, ANOMALOUS, INK, FAINT = "#3b6ea8", "#d1495b", "#2b2d33", "#9a9da6"
LINES = ("#3b6ea8", "#d1495b", "#2a9d8f", "#e09f3e", "#7a5195", "#6c757d", "#8d5524", "#00a6d6")
DASHED = (0, (4, 3))
HEAT = colormaps["inferno"]
GRAY = colormaps["gray"].with_extremes(bad="black")


def loss_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Training and validation loss over steps, the smallest validation loss marked.

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
    """How scores [N] are distributed among normal slices and among anomalous ones [N] bool.

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


def roc_and_pr(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """ROC and precision-recall curves of several (scores, boolean labels), by their names.

    A curve without positives or without negatives does not exist and is left out.
    """
    figure, (roc, pr) = _figure(2, width=11, height=3.9)
    prevalence = np.nan
    for (name, pair), color in zip(curves.items(), _colors(len(curves)), strict=True):
        points = operating_points(in_memory(*pair))
        metrics = metrics_at(points)
        prevalence = metrics["prevalence"]
        if np.isnan(metrics["auroc"]):
            continue
        roc_points, pr_points = _curves(points)
        style = {"color": color, "linewidth": 1.5, "solid_joinstyle": "bevel"}
        label = f"{name}\nAUROC {metrics['auroc']:.3f}, AUPRC {metrics['auprc']:.3f}"
        roc.plot(*roc_points, label=label, **style)
        pr.plot(*pr_points, drawstyle="steps-pre", **style)
    chance = {"color": FAINT, "linewidth": 1, "linestyle": DASHED}
    label = f"chance\nAUROC 0.500, AUPRC {prevalence:.3f}"
    roc.plot((0, 1), (0, 1), label=label, **chance)
    pr.plot((0, 1), (prevalence, prevalence), **chance)
    for axes in (roc, pr):
        axes.set(xlim=(0, 1), ylim=(0, 1.01))
    _label(roc, "Receiver operating characteristic", "false-positive rate", "true-positive rate")
    _label(pr, "Precision and recall", "recall", "precision")
    figure.legend(frameon=False, fontsize=8.5, loc="outside right upper", labelcolor=INK)
    return figure


def _curves(points: OperatingPoints) -> tuple[tuple, tuple]:
    """ROC (with a corner wherever negatives lie between positives) and PR, thinned for drawing."""
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
    """The representations' covariance spectrum [D], largest first, and their effective rank."""
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


def examples(
    images: np.ndarray,
    masks: np.ndarray,
    raw: np.ndarray,
    processed: np.ndarray,
    scores: np.ndarray,
) -> Figure:
    """A row a slice: image, annotation, raw heatmap, post-processed heatmap over the image.

    All arrays [n, H, W], scores [n]. Each kind of heatmap has one scale in the whole figure, from
    zero to its 99.9th percentile, so that maps can be compared between slices.
    """
    size = 2.05
    figure = Figure(figsize=(4 * size + 1.3, len(images) * size + 0.9), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    grid = figure.subplots(len(images), 4, squeeze=False)
    tops = [max(float(np.percentile(maps, 99.9)), 1e-12) for maps in (raw, processed)]
    for row, image, mask, heat, smooth, score in zip(
        grid, images, masks, raw, processed, scores, strict=True
    ):
        for axes in (row[0], row[1], row[3]):
            # Exactly zero is background, which a normalized image would show as mid-gray.
            axes.imshow(np.ma.masked_equal(image, 0), cmap=GRAY, vmin=-CLIP, vmax=CLIP)
        if mask.any():
            row[1].contour(mask, levels=[0.5], colors=[LINES[7]], linewidths=1.3)
        left = row[2].imshow(heat, cmap=HEAT, vmin=0, vmax=tops[0])
        strength = np.clip(smooth / tops[1], 0, 1)
        right = row[3].imshow(smooth, cmap=HEAT, vmin=0, vmax=tops[1], alpha=0.9 * strength)
        row[0].set_ylabel(
            f"{'anomalous' if mask.any() else 'normal'}\nscore {score:.4g}", fontsize=9, color=INK
        )
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    titles = ("image", "annotation", "heatmap, raw", "heatmap, post-processed")
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=10, color=INK)
    for column, shown in ((2, left), (3, right)):
        bar = figure.colorbar(
            shown,
            ax=grid[:, column],
            location="bottom",
            fraction=0.03,
            aspect=22,
            pad=0.01,
            shrink=0.86,
        )
        bar.solids.set_alpha(1)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, colors=INK, length=2)
        bar.set_label("heatmap value, one scale for all slices", fontsize=8, color=INK)
    return figure


def _figure(panels: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `panels` side by side, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    """Titles and axis labels in one style, without frame or chart junk."""
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(x, fontsize=9.5, color=INK)
    axes.set_ylabel(y, fontsize=9.5, color=INK)
    axes.tick_params(labelsize=9, colors=INK, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(axis="y", color=FAINT, alpha=0.2, linewidth=0.8)
    axes.set_axisbelow(True)


def _colors(count: int) -> list:
    """Colors that can be told apart: fixed ones for a few lines, a ramp for many."""
    if count <= len(LINES):
        return list(LINES[:count])
    return list(colormaps["turbo"](np.linspace(0.05, 0.95, count)))
