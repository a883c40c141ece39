"""How training should scale: what a step sends, and how much of many GPUs that leaves.

    python -m experiments.benchmarks.scaling [--step_ms=10.2]

A calculation, not a measurement. A GPU sends and receives in a step of SimCLR, with n GPUs:

- the gradients' mean: a ring all-reduce of 4 bytes a parameter, 2 (n - 1) / n times;
- both views' projections: gathered, and their gradients scattered, 4 bytes a number each;
- batch statistics: of each view, mean and mean square of each channel, forward and backward.

Communication is assumed not to overlap with computation, so that the efficiency is a lower bound:

    efficiency = t / (t + contrast + bytes / bandwidth + messages * latency * log2 n)

where t is the single GPU's step, `contrast` the time to compare a GPU's views with those of all,
and the bandwidth that of a ring's slowest link: NVLink in a node, all adapters of a node between
nodes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from absl import flags

from cradl_jax.methods import initial_variables
from experiments.benchmarks.training import PAPER, Network, config_of, training_flops
from experiments.cli import command
from experiments.study import settings

STEP_MS = flags.DEFINE_float(
    "step_ms",
    None,
    "Measured time of a step of 512 slices on one GPU, ms; otherwise estimated.",
)
BATCH = 512  # of the paper's study
PEAK = 989e12  # FLOP/s, bfloat16 products of an H100 or H200
SHARE = 0.4  # of the peak that a step is estimated to reach
NODE = 8  # GPUs
NVLINK = 450e9  # B/s a GPU in one direction, within a node
FABRICS = (25e9, NODE * 50e9)  # B/s a node: one adapter of 200 Gbit/s, or one of 400 a GPU
LATENCY = 10e-6  # s, a message between nodes with its launch
COUNTS = (8, 64, 512)


class Load(NamedTuple):
    """Bytes that one GPU sends in a step, and the number of messages."""

    gradients: float
    views: float
    statistics: float
    messages: int

    @property
    def bytes(self) -> float:
        """Sum of all bytes."""
        return self.gradients + self.views + self.statistics


def sizes(network: Network) -> tuple[int, int, int]:
    """Count the parameters of SimCLR with its head, and its normalized channels and layers."""
    config = config_of(network)
    model = settings.network(config, "cradl")
    shapes = jax.eval_shape(lambda: initial_variables(model, config.seed, network.size))
    count = {name: [np.prod(s.shape) for s in jax.tree.leaves(shapes[name])] for name in shapes}
    return (
        int(sum(count["params"])),
        int(sum(count["batch_stats"])) // 2,
        len(count["batch_stats"]) // 2,
    )


def load(network: Network, count: int, batch: float) -> Load:
    """Return what one of `count` GPUs sends in a step of `batch` slices over all of them."""
    parameters, channels, layers = sizes(network)
    others = (count - 1) / count
    return Load(
        gradients=2 * others * 4 * parameters,
        views=2 * others * 2 * batch * network.head[-1] * 4,
        statistics=2 * others * 2 * 2 * 2 * channels * 4,
        messages=1 + 2 * 2 + 2 * 2 * layers,
    )


def step_seconds(network: Network, slices: float, count: int, bandwidth: float, t: float) -> float:
    """Estimate a step of `count` GPUs with `slices` each, where one GPU takes `t` s a slice."""
    batch = slices * count
    sent = load(network, count, batch)
    pairs = 2 * slices * 2 * (batch - slices)  # the GPU's own views are in `t` already
    contrast = 3 * 2 * pairs * network.head[-1] / (SHARE * PEAK)
    waiting = sent.messages * LATENCY * math.log2(count)
    return slices * t + contrast + sent.bytes / bandwidth + waiting


def rows(network: Network, t: float, counts: Sequence[int] = COUNTS) -> list[list[str]]:
    """Return the cells of a row for each count of GPUs; one GPU takes `t` s a slice."""
    cells = []
    for count in counts:
        sent = load(network, count, BATCH * count)
        bandwidths = (NVLINK,) if count <= NODE else FABRICS
        efficiencies = [
            BATCH * t / step_seconds(network, BATCH, count, bandwidth, t)
            for bandwidth in bandwidths
        ]
        speed_ups = [
            BATCH * t / step_seconds(network, BATCH / count, count, bandwidth, t)
            for bandwidth in bandwidths
        ]
        cells.append(
            [
                str(count),
                *(f"{part / 1e6:,.1f}" for part in sent[:3]),
                " to ".join(f"{100 * efficiency:.0f} %" for efficiency in efficiencies),
                " to ".join(f"{speed_up:.1f}" for speed_up in speed_ups),
            ]
        )
    return cells


def main() -> None:
    """Print the table."""
    network = PAPER
    needed = training_flops("cradl", network)
    t, source = needed / (SHARE * PEAK), "estimated"
    if STEP_MS.value is not None:
        t, source = STEP_MS.value / 1e3 / BATCH, "measured"
    parameters, channels, _ = sizes(network)
    print(f"{parameters:,} parameters, {channels:,} channels, {needed / 1e9:.1f} GFLOP a slice")
    print(f"a step of {BATCH}: {1e3 * BATCH * t:.1f} ms, {source}\n")
    titles = ["GPUs", "gradients, MB", "views, MB", "statistics, MB"]
    titles += [f"efficiency, {BATCH} a GPU", f"speed-up, {BATCH} over all"]
    lines = [titles, ["---:"] * len(titles), *rows(network, t)]
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))


if __name__ == "__main__":
    command.run(main)
