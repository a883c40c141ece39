"""The metrics of very many voxels: the time and the memory that they take."""

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import sklearn.metrics

from cradl_jax.evaluation import metrics
from experiments.benchmarks.rows import Limit, Row, Skipped, compare
from experiments.benchmarks.timing import memory

CHUNK = 512 * 128 * 128  # voxels that `experiments.evaluate` reads at once
PREVALENCE = 0.02427  # of BraTS' test voxels (Table 1)
BRATS_TEST = 35_910 * 128 * 128  # its voxels (Table 1)
SLOW_REPETITIONS = 3  # the peer takes a minute for each


def stream(voxels: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield chunks of float32 scores and labels; hardly any two scores are equal."""
    for first in range(0, voxels, CHUNK):
        rng = np.random.default_rng(first)
        count = min(CHUNK, voxels - first)
        labels = rng.random(count, np.float32) < PREVALENCE
        scores = rng.standard_exponential(count, np.float32)
        scores[labels] *= 4
        yield scores, labels


def metric_values(
    voxels: int = 100_000_000,
    repetitions: int = SLOW_REPETITIONS,
) -> Row:
    """Time AUPRC, AUROC, best Dice and FPR95 of voxels that are in memory."""
    scores, labels = map(np.concatenate, zip(*stream(voxels), strict=True))

    def check(mine: dict[str, float], theirs: dict[str, float]) -> None:
        for name, expected in theirs.items():
            np.testing.assert_allclose(mine[name], expected, atol=1e-6, err_msg=name)

    return compare(
        "metrics",
        f"AUPRC, AUROC, best Dice, FPR95 of {voxels:,} float32 voxels",
        "metrics.binary_metrics",
        lambda: metrics.binary_metrics(scores, labels),
        {"scikit-learn precision_recall_curve, roc_curve": lambda: _scikit_learn(scores, labels)},
        work="Results agree to 1e-6. The four metrics of the peer come from its two curves, not "
        "from four functions that each sort.",
        check=check,
        warm_up=False,
        limit=Limit(memory(), 2 * (scores.nbytes + labels.nbytes)),
        repetitions=repetitions,
    )


def _scikit_learn(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the same four metrics, from the curves of scikit-learn."""
    precision, recall, _ = sklearn.metrics.precision_recall_curve(labels, scores)
    false, true, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    dice = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return {
        "auprc": float(-np.sum(np.diff(recall) * precision[:-1])),
        "auroc": float(sklearn.metrics.auc(false, true)),
        "dice": float(dice.max()),
        "fpr95": float(false[np.argmax(true >= 0.95)]),
    }


def memory_above_stream(voxels: int = BRATS_TEST) -> Row:
    """Measure the peak memory of the metrics of a stream, beyond that of the stream itself."""
    if not Path("/proc/self/clear_refs").exists():
        raise Skipped("the peak of a process is read from /proc, which this system lacks")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        seconds, size = pool.submit(peak_above_stream, voxels).result()
    return Row(
        "memory",
        f"the same metrics of {voxels:,} voxels, streamed",
        "metrics.operating_points",
        seconds,
        (seconds, seconds),
        peak_gb=size / 1e9,
        work="Peak of a separate process, minus the peak of passing over the stream alone. The "
        "seconds include making the stream twice. Hardly any two scores are equal.",
    )


def peak_above_stream(voxels: int) -> tuple[float, int]:
    """Return the seconds of the metrics of a stream, and their bytes beyond the stream's peak."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    for _ in stream(voxels):
        pass
    before = _peak()
    started = time.perf_counter()
    metrics.metrics_at(metrics.operating_points(lambda: stream(voxels)))
    return time.perf_counter() - started, _peak() - before


def _peak() -> int:
    """Return the largest resident memory of this process so far, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return 1024 * int(kibibytes)
