"""Use a trained run: score slices, and predict what is anomalous in scans."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cradl_jax.data.scans.layouts import stem
from cradl_jax.data.scans.preparation import Preparation, stated_preparation
from cradl_jax.data.scans.volumes import Volume, read_volume
from cradl_jax.data.slices.scan_statistics import describe
from cradl_jax.devices.machine import devices_in_words
from cradl_jax.errors import InputError, cause
from cradl_jax.evaluation import masks
from cradl_jax.evaluation.thresholds import RATES
from cradl_jax.intensity import CLIP
from cradl_jax.names import LOCAL
from cradl_jax.prediction import findings, input_qc, raw
from cradl_jax.prediction.files import OperatingPoint, ScanResult
from cradl_jax.prediction.inputs import InputScan, check_contrast, check_names
from cradl_jax.prediction.scan import (
    Prediction,
    ScoreSlices,
    SliceScores,
    predict_volume,
    slice_scorer,
)
from cradl_jax.runs import archive, checkpoints, contents, folder
from cradl_jax.runs.contents import RunContents
from cradl_jax.scoring import Batch
from cradl_jax.storage.manifest import versions
from cradl_jax.storage.reading import MISSING, kind_of

REMEDY = "choose one, or name none for the one that validation chose"
SLICES_AT_ONCE = 32  # a number of its own, so that no setting changes a prediction


@dataclass(frozen=True, eq=False)
class Run:
    """A trained run with one slice score, one heatmap and one threshold of each in use.

    `load_run` makes it, `using` gives one with others in use.

    Attributes:
        contents: network, densities, thresholds, and what made them.
        score_name: slice score in use, one of `scores`.
        heatmap_name: heatmap in use, one of `heatmaps`.
        fpr: false-positive rate of the slices' threshold among healthy validation slices.
        mask: threshold of the heatmap, one of `masks.MASKS`, see `masks.HealthyMap`.
        smallest_ml: volume of the smallest finding.
    """

    contents: RunContents
    score_name: str
    heatmap_name: str
    fpr: float
    mask: str
    smallest_ml: float

    @property
    def scores(self) -> list[str]:
        """Names of the slice scores."""
        return list(self.contents.thresholds.slices)

    @property
    def heatmaps(self) -> list[str]:
        """Names of the heatmaps."""
        return list(self.contents.thresholds.heatmaps)

    def using(
        self,
        score: str | None = None,
        heatmap: str | None = None,
        fpr: float | None = None,
        mask: str | None = None,
        smallest_ml: float | None = None,
    ) -> "Run":
        """Return the same run with others of its fields in use; None keeps what is in use.

        Raises:
            InputError: there is no such score, heatmap, rate or mask, or the volume is negative.
        """
        fpr = self.fpr if fpr is None else fpr
        rate = f"{fpr:g}" if isinstance(fpr, Real) else fpr  # text has no format of its own
        _check("fpr", rate, RATES, "choose one of these shares; 0.05 is 5 %")
        score, heatmap = score or self.score_name, heatmap or self.heatmap_name
        _check("score", score, self.scores, REMEDY)
        _check("heatmap", heatmap, self.heatmaps, REMEDY)
        mask = mask or self.mask
        _check("mask", mask, masks.MASKS, "choose one, see --help")
        smallest_ml = self.smallest_ml if smallest_ml is None else smallest_ml
        if not 0 <= smallest_ml < math.inf:
            raise InputError(
                f"smallest: expected the volume of the smallest finding in ml, 0 or more, found "
                f"{smallest_ml:g}; 0 keeps every part"
            )
        return Run(self.contents, score, heatmap, fpr, mask, smallest_ml)

    def score(
        self,
        images: np.ndarray,
        brains: np.ndarray | None = None,
        positions: np.ndarray | None = None,
    ) -> SliceScores:
        """Score slices and find their heatmaps.

        The slices are taken as those of one scan from its lowest to its highest. Maps of densities
        at each position ("dense") are averaged over neighbours and told in units of their median
        over all slices, so that a part of a scan does not get what it gets in the whole.

        Args:
            images: [N, size, size] or one [size, size], as `normalized_slices` makes them by the
                run's `slicing`: z-scored over the brain, in [-1.5, 1.5], 0 outside of it.
            brains: bool, of the same shape; None: where `images` is not 0.
            positions: heights of the slices within the brain, 0 its lowest slice and 1 its highest,
                [N]. Only densities at each position take them.

        Raises:
            InputError: another shape, values that are not finite or out of range, or no positions
                where they are needed.
        """
        images = np.asarray(images, np.float32)
        slices = images[None] if images.ndim == 2 else images
        size = self.contents.manifest["settings"]["size"]
        if slices.ndim != 3 or slices.shape[1:] != (size, size) or not len(slices):
            raise InputError(
                f"images: expected shape (N, {size}, {size}), found {images.shape}; slice scans as "
                "the run was trained, e.g. with cradl_jax.data.slices.preprocess.normalized_slices"
            )
        if not np.abs(slices).max() <= CLIP * (1 + 1e-6):
            raise InputError(
                f"images: expected normalized intensities in [-{CLIP}, {CLIP}], found values from "
                f"{np.min(slices):g} to {np.max(slices):g}; normalize them, e.g. with "
                "cradl_jax.data.slices.preprocess.normalized_slices"
            )
        if brains is not None and np.shape(brains) != images.shape:
            raise InputError(
                f"brains: expected the shape of images, {images.shape}, found {np.shape(brains)}; "
                "pass those of the same slices"
            )
        inside = slices != 0 if brains is None else np.reshape(brains, slices.shape).astype(bool)
        local = LOCAL & {self.score_name, self.heatmap_name}
        heights = np.zeros(len(slices)) if positions is None else np.ravel(positions)
        fits = heights.shape == (len(slices),)
        if (local and positions is None) or not (fits and ((heights >= 0) & (heights <= 1)).all()):
            found = "none" if positions is None else f"{heights.size}"
            if fits and positions is not None:
                found = f"{heights.min():g} to {heights.max():g}"
            raise InputError(
                f"positions: expected the heights of {len(slices)} slices within the brain, from 0 "
                f"to 1, found {found}; pass them, or choose another score and heatmap"
            )
        return self.score_slices(Batch(slices, inside, heights.astype(np.float32)))

    def predict(
        self,
        scan: Path | str,
        name: str | None = None,
        prepare: bool = False,
        extract: str | None = None,
    ) -> ScanResult:
        """Predict which slices of a scan are anomalous, and where.

        Args:
            scan: a brain-extracted volume in any orientation, spacing and field of view; with
                `prepare` a raw one, whose skull may be on.
            name: of the results; None: that of the file.
            prepare: prepare the scan as the training scans were, see `experiments.prepare`; the
                map is brought back onto the scan's own voxels.
            extract: tool for brain extraction; None: that of the training scans.

        Raises:
            InputError: the scan cannot be used, its name is not fit for a file, its file's name
                states another contrast than that of the run, or it cannot be prepared.
        """
        path = Path(scan).expanduser()
        named = InputScan(name or stem(path), path)
        check_names([named])
        raw.check_extract(extract, prepare)
        check_contrast(path, self.contents.manifest["settings"]["contrast"])
        if not prepare:
            volume = read_volume(path)
            prediction = predict_volume(self.score_slices, volume, self.slicing)
            warnings = self._warnings(volume, stated_preparation(path))
            return self._result(named, volume, prediction, warnings, self.about)
        like = raw.preparation_like(self.contents.thresholds.preparation, extract)
        scanned = raw.read_raw(path, like)
        prediction = predict_volume(self.score_slices, scanned.brain, self.slicing)
        warnings = self._warnings(scanned.brain, like)
        about = {**self.about, "prepared": raw.about(scanned, like)}
        on_head = raw.on_head(prediction, scanned)
        return self._result(named, scanned.head, on_head, warnings, about)

    def _result(
        self,
        scan: InputScan,
        volume: Volume,
        prediction: Prediction,
        warnings: list[str],
        about: Mapping[str, Any],
    ) -> ScanResult:
        """Find what lies above the thresholds."""
        thresholds = self.contents.thresholds
        healthy, of_map = thresholds.slices[self.score_name], thresholds.heatmaps[self.heatmap_name]
        point = OperatingPoint(healthy, f"{self.fpr:g}", of_map, self.mask, self.smallest_ml, about)
        heat = prediction.anomaly_map
        found = findings.find(heat, volume, of_map, self.mask, self.smallest_ml)
        return ScanResult(scan, volume, prediction, point, found, warnings)

    def _warnings(self, volume: Volume, preparation: Preparation | None) -> list[str]:
        """Say what makes a scan unlike the training scans."""
        thresholds = self.contents.thresholds
        return [
            *input_qc.background(volume.background),
            *input_qc.warnings(describe(volume), thresholds.training),
            *raw.difference(preparation, thresholds.preparation),
        ]

    @property
    def slicing(self) -> Mapping[str, Any]:
        """How a scan is sliced, see `data.slices.preprocess.normalized_slices`."""
        return self.contents.thresholds.slicing

    @cached_property
    def score_slices(self) -> ScoreSlices:
        """Scores and heatmaps of slices, compiled at the first call."""
        run, devices = self.contents, jax.local_devices()
        settings = run.manifest["settings"]
        names, steps = (self.score_name, self.heatmap_name), run.thresholds.restoration_steps
        densities = {name: one for name, one in run.densities.items() if name in names}
        of_features = {name: one for name, one in run.of_features.items() if name in names}
        scorers = contents.scorers(settings, run.variables, densities, of_features, steps)
        return slice_scorer(scorers, *names, SLICES_AT_ONCE, devices, run.thresholds.neighbours)

    @cached_property
    def about(self) -> Mapping[str, Any]:
        """Plain values: what makes the scores, for the summary of a scan."""
        settings = self.contents.manifest["settings"]
        return {
            "method": settings["method"],
            "seed": settings["seed"],
            "score": self.score_name,
            "heatmap": self.heatmap_name,
            "neighbours": self.contents.thresholds.neighbours,
            "model": self.contents.fingerprint,
            "slicing": self.slicing,
            "versions": versions(),
        }


def load_run(path: Path | str) -> Run:
    """Load a trained run, with the score and heatmap in use that validation chose.

    The threshold of slices lets 5 % of healthy ones pass, that of maps a thousandth of healthy
    brains, and a finding has 0.1 ml or more; `Run.using` changes that.

    Args:
        path: the folder of a run, such as runs/phantom/seed0/cradl, or a file that
            `experiments.export` wrote.

    Raises:
        InputError: there is no run, it is incomplete, damaged, made by another version, or its
            parts do not belong together.
    """
    path = Path(path).expanduser()
    kind = kind_of(path)
    if kind not in ("a file", "a folder"):
        found = "nothing" if kind == MISSING else kind
        raise InputError(
            f"{path}: expected the folder of a run or an exported run, found {found}; check the "
            "path"
        )
    devices_in_words()  # what the machine lacks is no fault of the run
    try:
        content = folder.read(path) if kind == "a folder" else archive.read(path)
        contents.check(content)
        chosen = content.chosen["score"], content.chosen["heatmap"]
        return Run(content, *chosen, 0.05, masks.DEFAULT, findings.LEAST_ML).using()
    except (InputError, *checkpoints.NO_DAMAGE):
        raise
    except Exception as fault:  # orbax raises bare ones on damaged checkpoints
        raise InputError(
            f"{path}: expected a run whose parts fit together, found a damaged one "
            f"({cause(fault)}); bring it back from a copy, or make it again"
        ) from fault


def _check(what: str, value: object, names: Sequence[str], remedy: str) -> None:
    if value not in names:
        raise InputError(f"{what}: expected one of {', '.join(names)}, found {value!r}; {remedy}")
