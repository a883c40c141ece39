"""One page for quality control: every prepared scan, the most suspicious first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

from cradl_jax.preparation.files import Source, brain_path, image_path
from cradl_jax.preparation.images import from_itk
from cradl_jax.preparation.scan import on_grid
from cradl_jax.preparation.template import Template
from cradl_jax.reporting.page import Picture, Section, Table, html_page
from cradl_jax.storage.files import write_text

EXPECTED = {
    "brain_ml": (900.0, 2200.0),
    "overlap": (0.75, 1.0),
    "bias": (1.0, 3.0),
    "residual_degrees": (0.0, 2.0),
    "residual_mm": (0.0, 2.0),
}
"""What an adult's scan has, by measure; see `scan.prepare`."""
WORDS = {
    "brain_ml": "brain volume [ml]",
    "overlap": "overlap with the template's brain (Dice)",
    "bias": "bias removed (95th to 5th percentile)",
    "turned_degrees": "turned by [degrees]",
    "residual_degrees": "residual tilt [degrees]",
    "residual_mm": "residual shift [mm]",
}
FAR = 4.0  # deviations from the median, of which the others leave few beyond
FEWEST = 5  # scans to be compared with one another


class Judged(NamedTuple):
    """A prepared scan and what is unusual about it.

    Attributes:
        source: of the scan.
        measures: by name.
        suspicion: how far the most unusual measure lies beyond what is usual; 1 is the limit.
        reasons: the measures beyond it, in words.
    """

    source: Source
    measures: Mapping[str, float]
    suspicion: float
    reasons: Sequence[str]


def judge(sources: Sequence[Source], records: Sequence[Mapping[str, Any]]) -> list[Judged]:
    """Compare each scan with what is expected and with the others; the most suspicious first."""
    measures = [record["Measures"] for record in records]
    judged = []
    for source, own in zip(sources, measures, strict=True):
        found: dict[str, tuple[float, str]] = {}
        for name, value in own.items():
            low, high = EXPECTED.get(name, (-np.inf, np.inf))
            width = high - low if np.isfinite(high - low) else 1.0
            beyond = 1 + max(low - value, value - high) / width
            others = np.array([one[name] for one in measures])
            middle = np.median(others)
            spread = 1.4826 * np.median(np.abs(others - middle)) + 0.02 * abs(middle)
            unlike = abs(value - middle) / max(spread, 1e-9) / FAR if len(others) >= FEWEST else 0.0
            if beyond > 1:
                found[name] = beyond, f"{WORDS[name]} {value:.3g}, expected {low:g} to {high:g}"
            elif name in EXPECTED and unlike > 1:
                found[name] = unlike, f"{WORDS[name]} {value:.3g}, the others' median {middle:.3g}"
            else:
                found[name] = min(1.0, max(unlike, 0.0)), ""
        reasons = [words for _, words in found.values() if words]
        judged.append(Judged(source, own, max(far for far, _ in found.values()), reasons))
    return sorted(judged, key=lambda one: -one.suspicion)


def write_page(
    root: Path, judged: Sequence[Judged], failed: Mapping[str, str], template: Template
) -> Path:
    """Write quality.html, the scans that failed and a picture of each other; return its path."""
    names = [name for name in WORDS if any(name in one.measures for one in judged)]
    rows = [
        (
            one.source.label,
            "; ".join(one.reasons) or "as expected",
            *(f"{one.measures[name]:.3g}" if name in one.measures else "" for name in names),
        )
        for one in judged
    ]
    table = Table(
        "Prepared scans, the most suspicious first.",
        ("scan", "unusual", *(WORDS[name] for name in names)),
        rows,
    )
    lost = Table("Scans that failed.", ("scan", "why"), list(failed.items()))
    sections = [Section("Failed", [lost])] if failed else []
    sections.append(Section("Measures", [table]))
    for one in judged:
        caption = f"{one.source.scan.image}: {'; '.join(one.reasons) or 'as expected'}"
        picture = Picture(_planes(root, one.source, template), caption)
        sections.append(Section(one.source.label, [picture]))
    place = root / "quality.html"
    write_text(place, html_page("Prepared scans", sections))
    return place


def _planes(root: Path, source: Source, template: Template) -> Figure:
    """Draw three planes through the middle, the brain outlined in red, the template's in cyan."""
    image = nib.Nifti1Image.from_filename(image_path(root, source))
    data = image.get_fdata(dtype=np.float32)
    brain = nib.Nifti1Image.from_filename(brain_path(root, source)).get_fdata(dtype=np.float32)
    spacing = float(image.header.get_zooms()[0])
    expected = from_itk(on_grid(template, spacing))
    figure = Figure(figsize=(9, 3.4), layout="constrained", facecolor="black")
    top = float(np.percentile(data[brain > 0], 99.5))
    for axes, axis in zip(figure.subplots(1, 3), (2, 1, 0), strict=True):
        shown, own, mean = (
            np.take(one, one.shape[axis] // 2, axis).T for one in (data, brain, expected)
        )
        axes.imshow(shown, "gray", origin="lower", vmin=0, vmax=top)
        axes.contour(own, [0.5], colors="red", linewidths=0.8)
        axes.contour(mean, [0.5], colors="cyan", linewidths=0.8)
        axes.set_axis_off()
    return figure
