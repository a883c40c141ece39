"""One page for quality control: every prepared scan, the most suspicious first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

from cradl_jax.preparation.files import Source, brain_path, image_path
from cradl_jax.preparation.scan import template_brain
from cradl_jax.preparation.template import Template, grid
from cradl_jax.reporting.figures import cut, planes
from cradl_jax.reporting.page import Picture, Section, Table, html_page
from cradl_jax.storage.files import write_text

EXPECTED = {
    "brain_ml": (1550.0, 650.0),
    "overlap": (1.0, 0.25),
    "bias": (1.0, 2.0),
    "residual_degrees": (0.0, 2.0),
    "residual_mm": (0.0, 2.0),
}
"""What is best, by measure, and how far from it an adult's scan may be; see `scan.prepare`."""
WORDS = {
    "brain_ml": "brain volume [ml]",
    "overlap": "overlap with the template's brain (Dice)",
    "bias": "bias removed (95th to 5th percentile)",
    "turned_degrees": "turned by [degrees]",
    "residual_degrees": "residual tilt [degrees]",
    "residual_mm": "residual shift [mm]",
}
COMPARED = ("brain_ml", "overlap", "bias")
FAR = 4.0  # deviations from the median, beyond which few of the others lie
LEAST_SPREAD = 0.02  # of the median: scans that are this alike differ by chance
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
        found = [
            _unusual(name, own[name], [one[name] for one in measures])
            for name in EXPECTED
            if name in own
        ]
        reasons = [words for far, words in found if far > 1]
        judged.append(Judged(source, own, max(far for far, _ in found), reasons))
    return sorted(judged, key=lambda one: -one.suspicion)


def _unusual(name: str, value: float, all_values: Sequence[float]) -> tuple[float, str]:
    """Return how far a measure lies from what is usual, 1 being the limit, and so in words."""
    best, most = EXPECTED[name]
    beyond = abs(value - best) / most
    if beyond > 1 or name not in COMPARED or len(all_values) < FEWEST:
        return beyond, f"{WORDS[name]} {value:.4g}, expected within {most:g} of {best:g}"
    middle = float(np.median(all_values))
    spread = 1.4826 * float(np.median(np.abs(np.subtract(all_values, middle))))
    unlike = abs(value - middle) / (FAR * (spread + LEAST_SPREAD * middle))
    return unlike, f"{WORDS[name]} {value:.4g}, the others' median {middle:.4g}"


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
    expected = template_brain(template, grid(template, spacing))
    middle = [length // 2 for length in data.shape]
    shown, own, mean = (cut(one, middle) for one in (data, brain, expected))
    outlines = [{"red": one, "cyan": other} for one, other in zip(own, mean, strict=True)]
    return planes(shown, outlines, (1, 1, 1))
