"""One self-contained HTML page of a scan: its anomaly map in a 3-D viewer, and its slices' scores.

The viewer is nilearn's (brainsprite): its scripts and images lie in the page, which loads nothing.
Do not give nilearn text from data: it writes titles into its page as they are.
"""

import math
import re
import warnings as python_warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from nibabel import affines
from scipy import ndimage

from cradl_jax.data.scans.volumes import Volume
from cradl_jax.evaluation.masks import KEPT
from cradl_jax.prediction.findings import Finding
from cradl_jax.reporting.figures import ANOMALOUS, DASHED, FAINT, INK, NORMAL
from cradl_jax.reporting.page import Frame, Picture, Section, Table, html_page

MOST_VOXELS = 2_100_000  # shown: below 15 MB even if every one is noise overlaid with noise
MARGIN_MM = 3.0  # around the brain
VIEWER_STYLE = (
    "<style>body{margin:0;font:14px system-ui,sans-serif}"
    ".findings{padding:.4rem;max-height:3.4rem;overflow-y:auto}</style>"
)
HEALTHY = "5th to 95th percentile of healthy slices at that height"
SHOWN = 50  # findings on the page
NO_FINDING = "None: nowhere does the map lie above its threshold, or not in a part large enough."
FINDINGS = (
    "Connected parts of the scan where the map lies above its threshold, the heaviest first, and "
    "how many as heavy ones a healthy validation scan has. A button beneath the map moves the "
    "cross to the peak of each."
)
FINDING_HEADER = (
    *("Finding", "Volume, ml", "Peak", "Mass", "Per healthy scan"),
    *("Center (R, A, S), mm", "Extent (R, A, S), mm"),
)
ALIKE = "Yes, as far as contrast, size, shape, orientation and voxels tell."


class Profile(NamedTuple):
    """The slices' scores.

    Attributes:
        heights_mm: [n] height of each slice in scanner coordinates, see `Prediction.heights_mm`.
        scores: [n], higher is more anomalous.
        threshold: score above which a slice is called anomalous.
        healthy_range: 5th and 95th percentile, [n] each, of healthy slices' scores.
    """

    heights_mm: np.ndarray
    scores: np.ndarray
    threshold: float
    healthy_range: tuple[np.ndarray, np.ndarray]


def scan_page(
    title: str,
    scan: Volume,
    heat: np.ndarray,
    profile: Profile,
    findings: Sequence[Finding],
    *,
    threshold: float,
    summary: Mapping[str, object],
    warnings: Sequence[str],
) -> str:
    """Return the page of one scan, below 15 MB: it needs no other file and no network.

    All text may come from data.

    Args:
        title: heading, such as the scan's name.
        scan: from `volumes.read_volume`.
        heat: [X, Y, Z] anomaly map, finite and not negative, on the voxels of `scan`.
        profile: the slices' scores.
        findings: the heaviest first.
        threshold: the overlay shows the map where it lies above.
        summary: names and values of a table.
        warnings: sentences on why the scan may not be fit.
    """
    frame, caption = _viewer(scan, heat, threshold, findings[:SHOWN])
    sections = [
        Section("Like the training scans?", warnings or [ALIKE]),
        Section("Anomaly map", [frame, caption]),
        Section("Findings", [_finding_table(findings) if findings else NO_FINDING]),
        Section("Slices", [Picture(profile_figure(profile), _profile_caption(profile))]),
        Section("Summary", [summary]),
    ]
    return html_page(title, sections)


def profile_figure(profile: Profile) -> Figure:
    """Draw scores against height, the threshold as a line, the healthy range as a band."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(profile.heights_mm)
    heights, scores = profile.heights_mm[order], profile.scores[order]
    low, high = (ends[order] for ends in profile.healthy_range)
    style: dict[str, Any] = {"color": FAINT, "alpha": 0.3, "linewidth": 0}
    axes.fill_between(heights, low, high, label=HEALTHY, **style)
    axes.plot(heights, scores, ".-", color=NORMAL, linewidth=1.2, markersize=4, label="this scan")
    above = scores > profile.threshold
    label = f"threshold {profile.threshold:.4g}: {above.sum()} of {len(scores)} slices above"
    axes.axhline(profile.threshold, color=ANOMALOUS, linewidth=1.2, linestyle=DASHED, label=label)
    axes.plot(heights[above], scores[above], ".", color=ANOMALOUS, markersize=6)
    axes.set_xlabel("height of the slice, mm (bottom to top)", fontsize=9.5, color=INK)
    axes.set_ylabel("slice score (higher: more anomalous)", fontsize=9.5, color=INK)
    axes.tick_params(labelsize=9, colors=INK, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.legend(frameon=False, fontsize=7.5, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _profile_caption(profile: Profile) -> str:
    highest = int(np.argmax(profile.scores))
    return (
        f"Score of each axial slice. The highest, {profile.scores[highest]:.4g}, is of slice "
        f"{highest + 1} of {len(profile.scores)}, counted from the lowest, at "
        f"{profile.heights_mm[highest]:.0f} mm."
    )


def _finding_table(findings: Sequence[Finding]) -> Table:
    """Return the heaviest findings as a table."""
    rows = [
        (
            *(str(one.number), f"{one.volume_ml:.2f}", f"{one.peak:.4g}", f"{one.mass:.4g}"),
            f"{one.per_healthy_scan:.2g}" if one.per_healthy_scan < KEPT else f"{KEPT} or more",
            *(", ".join(f"{x:.0f}" for x in place) for place in (one.center_mm, one.extent_mm)),
        )
        for one in findings[:SHOWN]
    ]
    more = len(findings) - len(rows)
    notes = (f"{more} more are in the table beside this page.",) if more else ()
    return Table(FINDINGS, FINDING_HEADER, rows, notes=notes)


def _viewer(
    scan: Volume, heat: np.ndarray, threshold: float, findings: Sequence[Finding]
) -> tuple[Frame, str]:
    """Return nilearn's viewer of the brain and the map above a threshold, and its caption."""
    (box,) = ndimage.find_objects(((scan.data != 0) | (heat > threshold)).view(np.uint8))
    shift = affines.from_matvec(np.eye(3), [side.start for side in box])
    native, cut = scan.affine @ shift, heat[box]
    affine, shape, step = _display_grid(cut.shape, native)
    top, scale = float(cut.max()), 1.0
    if top > 0 and not 0.01 <= top < 1e5:  # nilearn writes three decimals
        scale = 10.0 ** -math.floor(math.log10(top))
    peak = affines.apply_affine(native, np.unravel_index(cut.argmax(), cut.shape))
    document = _nilearn_page(
        overlay=_resampled(cut, native, affine, shape) * np.float32(scale),
        background=_resampled(_windowed(scan.data[box]), native, affine, shape),
        affine=affine,
        cross=peak if top > 0 else affine[:3, 3] + step * shape / 2,
        bottom=max(threshold, 1e-6 * top) * scale,
        top=top * scale,
    )
    document = _with_buttons(document, findings, affine)
    nx, ny, nz = shape
    frame = Frame("Scan and anomaly map", document, float(1.1 * max(ny, nz) / (2 * nx + ny)))
    return frame, _viewer_caption(threshold, top, scale, step, scan.spacing_mm)


def _with_buttons(document: str, findings: Sequence[Finding], affine: np.ndarray) -> str:
    """Return nilearn's page with a button for each finding that moves the cross to its peak."""
    buttons = []
    for one in findings:
        voxel = np.floor(affines.apply_affine(np.linalg.inv(affine), one.peak_mm) + 0.5)
        x, y, z = voxel.astype(int).tolist()
        move = f"Object.assign(brain.numSlice,{{X:{x},Y:{y},Z:{z}}});brain.drawAll()"
        buttons.append(f'<button onclick="{move}">{one.number}: {one.volume_ml:.2f} ml</button>')
    page = document.replace("brain = brainsprite(", "window.brain = brain = brainsprite(")
    return page.replace("</body>", f'<div class="findings">{" ".join(buttons)}</div></body>')


def _nilearn_page(
    *,
    overlay: np.ndarray,
    background: np.ndarray,
    affine: np.ndarray,
    cross: np.ndarray,
    bottom: float,
    top: float,
) -> str:
    """Return the page of nilearn's viewer, without its links to other servers.

    It shows `overlay` [X, Y, Z] in colors where it lies above `bottom`, which end at `top`, on
    `background` [X, Y, Z] in gray, both with this affine. The `cross` is in mm.
    """
    from nilearn.plotting import view_img  # takes seconds to import

    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")  # on maps that lie above or below the threshold
        document = view_img(
            nib.Nifti1Image(overlay, affine),
            bg_img=nib.Nifti1Image(background, affine),
            cut_coords=tuple(cross),
            threshold=bottom,
            vmin=0.0,
            vmax=max(top, 1.001 * bottom, 1e-3),
            symmetric_cmap=False,
            cmap="inferno",
            black_bg=True,
            dim=0,
            radiological=False,  # true mirrors the picture and leaves the cross where it was
            resampling_interpolation="nearest",
        ).html
    head, body = document.split("</head>", 1)
    head = re.sub(r"<link\b[^>]*>", "", head)  # to an icon on another server
    return f"{head}{VIEWER_STYLE}</head>{body}"


def _viewer_caption(
    threshold: float, top: float, scale: float, step: float, spacing_mm: Sequence[float]
) -> str:
    """Return what the viewer shows: values as they are in the map, lengths in mm."""
    spacing = " x ".join(f"{s:.3g}" for s in spacing_mm)
    sentences = [
        f"The map where it is above {threshold:.4g}; its highest value is {top:.4g}."
        if top > threshold
        else f"Nothing is marked: no value is above {threshold:.4g} (highest: {top:.4g}).",
        "" if scale == 1 else f"Colors show the map's values times {scale:g}.",
        "The cross starts where the map is highest; click to move it." if top > 0 else "",
        f"Shown in cubes of {step:.3g} mm along the scanner's axes, averaged or interpolated from "
        f"voxels of {spacing} mm. The patient's left is on the left (L).",
    ]
    return " ".join(filter(None, sentences))


def _windowed(data: np.ndarray) -> np.ndarray:
    """Map intensities, percentiles 0.5 to 99.5 of the brain, to [0.02, 1]; 0 outside."""
    brain = data != 0
    low, high = np.percentile(data[brain], (0.5, 99.5))
    window = np.clip((data - low) / max(high - low, 1e-12), 0, 1) * 0.98 + 0.02
    return np.where(brain, window, 0).astype(np.float32)


def _display_grid(
    shape: tuple[int, int, int], affine: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return affine [4, 4], shape [3] and step in mm of cubes along the scanner's axes.

    They cover the given voxels, are as fine as those, and at most about `MOST_VOXELS`.
    """
    corners = affines.apply_affine(affine, np.array([*np.ndindex(2, 2, 2)]) * shape - 0.5)
    low, high = corners.min(0), corners.max(0)
    finest = float(affines.voxel_sizes(affine).min())
    step = max(finest, float(np.prod(high - low + 2 * MARGIN_MM) / MOST_VOXELS) ** (1 / 3))
    margin = math.ceil(MARGIN_MM / step)  # whole cubes, so that they may coincide with voxels
    grid = np.diag([step, step, step, 1.0])
    grid[:3, 3] = low + (0.5 - margin) * step
    return grid, np.ceil((high - low) / step - 1e-3).astype(int) + 2 * margin, step


def _resampled(
    data: np.ndarray, affine: np.ndarray, target: np.ndarray, shape: np.ndarray
) -> np.ndarray:
    """Resample `data` [X, Y, Z] to another affine's voxels, float32: block means, then linear."""
    block = np.maximum(1, (target[0, 0] / affines.voxel_sizes(affine)).astype(int))
    padding = [(0, -n % b) for n, b in zip(data.shape, block, strict=True)]
    padded = np.pad(data, padding).astype(np.float32)
    folded = padded.reshape(
        [x for n, b in zip(padded.shape, block, strict=True) for x in (n // b, b)]
    )
    coarse = affine @ affines.from_matvec(np.diag(block), (block - 1) / 2)
    matrix = np.linalg.inv(coarse) @ target
    return ndimage.affine_transform(
        folded.mean((1, 3, 5)),
        matrix[:3, :3],
        matrix[:3, 3],
        tuple(shape),
        np.float32,
        order=1,
    )
