"""The metrics over very many voxels: their time, and the memory that they take."""

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import sklearn.metrics

from cradl_jax.evaluation import metrics
from experiments.benchmarks.rows import Bar, Limit, Row, Skipped, compare
from experiments.benchmarks.timing import memory

CHUNK = 512 * 128 * 128  # voxels that `experiments.evaluate` reads at once
PREVALENCE = 0.02427  # of BraTS' test voxels (Table 1)
BRATS_TEST = 35_910 * 128 * 128  # its voxels (Table 1)
GIGABYTE = 1e9
SLOW_REPETITIONS = 3  # the peer takes a minute for each


def stream(voxels: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks of float32 scores and labels; hardly any two scores are the same."""
    for first in range(0, voxels, CHUNK):
        rng = np.random.default_rng(first)
        count = min(CHUNK, voxels - first)
        labels = rng.random(count, np.float32) < PREVALENCE
        scores = rng.standard_exponential(count, np.float32)
        scores[labels] *= 4
        yield scores, labels


def metric_values(
    voxels: int = 100_000_000,
    bars: tuple[Bar, ...] = (),
    repetitions: int = SLOW_REPETITIONS,
) -> Row:
    """AUPRC, AUROC, best Dice and FPR95 of voxels that are in memory."""
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
        work="Results agree to 1e-6. The peer's four metrics come from its two curves, not from "
        "four functions that sort each.",
        check=check,
        warm_up=False,
        limit=Limit(memory(), 2 * (scores.nbytes + labels.nbytes)),
        bars=bars,
        repetitions=repetitions,
    )


def _scikit_learn(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The same four from scikit-learn's curves."""
    precision, recall, _ = sklearn.metrics.precision_recall_curve(labels, scores)
    false, true, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    dice = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return {
        "auprc": float(-np.sum(np.diff(recall) * precision[:-1])),
        "auroc": float(sklearn.metrics.auc(false, true)),
        "dice": float(dice.max()),
        "fpr95": float(false[np.argmax(true >= 0.95)]),
    }


def memory_above_stream(voxels: int = BRATS_TEST, bars: tuple[Bar, ...] = ()) -> Row:
    """Peak memory of the metrics of a stream, beside that of the stream itself."""
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
        share_of_limit=size / GIGABYTE,
        limit=f"{size / GIGABYTE:.2f} GB of 1 GB above the stream",
        work="Peak of a process of its own, less the peak of passing over the stream alone. The "
        "seconds include making the stream twice. Hardly any two scores are equal.",
        bars=bars,
    )


def peak_above_stream(voxels: int) -> tuple[float, int]:
    """Seconds of the metrics of a stream, and bytes of peak memory above the stream's own."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    for _ in stream(voxels):
        pass
    before = _peak()
    started = time.perf_counter()
    metrics.metrics_at(metrics.operating_points(lambda: stream(voxels)))
    return time.perf_counter() - started, _peak() - before


def _peak() -> int:
    """Largest resident memory of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return 1024 * int(kibibytes)
