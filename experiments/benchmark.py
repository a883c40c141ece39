"""Time the hot parts against what a user would take instead, side by side in one run.

    python -m experiments.benchmark [--parts=simclr,em] [--out=benchmark.json]

Prints a Markdown table and writes it as JSON. Every pair is first checked to compute the same.
The peers are the extra `bench` (`pip install -e .[bench]`); a part whose peer is not installed is
skipped. On a GPU the parts are those of the paper's study. `--parts=list` names the parts.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
from absl import flags
from tqdm import tqdm

from cradl_jax.errors import InputError
from cradl_jax.storage.files import write_json
from experiments.benchmarks import (
    accelerator,
    densities,
    localization,
    streaming,
    table,
    training,
    volumes,
    voxels,
)
from experiments.benchmarks.rows import Bar, Row, Skipped
from experiments.cli import command

CHOSEN = flags.DEFINE_list("parts", None, "Parts to time, all by default; list: name them.")
OUT = flags.DEFINE_string("out", "benchmark.json", "JSON file to write.")

RunContents = Mapping[str, Sequence[Callable[[], Row]]]


def faster(ratio: float) -> tuple[Bar, ...]:
    """The peer takes `ratio` times as long."""
    return (Bar("ratio", ratio),)


def within(seconds: float) -> tuple[Bar, ...]:
    """Ours takes so long at most."""
    return (Bar("our_seconds", seconds, at_most=True),)


ON_CPU: RunContents = {
    "simclr": (
        partial(training.simclr, bars=(*faster(1.3), Bar("share_of_limit", 0.55))),
        partial(training.simclr, training.PHANTOM, steps=25, bars=faster(1.2)),
    ),
    "vae": (
        partial(training.vae, bars=faster(1.2)),
        partial(training.vae, training.PHANTOM, steps=25, bars=faster(1.2)),
    ),
    "streaming": (partial(streaming.streaming, bars=faster(0.9)),),
    "augmentation": (partial(volumes.augmentation, bars=faster(10)),),
    "em": (partial(densities.em_iteration, bars=faster(2)),),
    "flow": (partial(densities.flow, bars=faster(1.2)),),
    "heatmaps": (partial(localization.heatmaps, bars=faster(1.5)),),
    "median": (partial(localization.median, bars=faster(10)),),
    "metrics": (partial(voxels.metric_values, bars=faster(25)),),
    "memory": (
        partial(voxels.memory_above_stream, bars=(Bar("share_of_limit", 1, at_most=True),)),
    ),
    "preprocessing": (partial(volumes.preprocessing, bars=faster(1.2)),),
    "phantom": (
        partial(volumes.phantom_volume, 2.0, bars=within(0.5)),
        partial(volumes.phantom_volume, 1.0, bars=within(4)),
    ),
}

TRAINED = (*within(900), Bar("share_of_limit", 0.4))

ON_ACCELERATOR: RunContents = {
    "pretext": (partial(accelerator.pretext, "cradl", bars=TRAINED),),
    "vae": (partial(accelerator.pretext, "vae", bars=TRAINED),),
    "cevae": (partial(accelerator.pretext, "cevae", bars=TRAINED),),
    "scoring": (partial(accelerator.scoring, bars=within(1 / 20_000)),),
    "em": (partial(accelerator.em, bars=within(10)),),
    "phantom": (partial(volumes.phantom_volume, 2.0), partial(volumes.phantom_volume, 1.0)),
}


def choose(parts: RunContents, names: Sequence[str] | None) -> RunContents:
    """The named parts, all if there are no names.

    Raises:
        InputError: there is no such part.
    """
    for name in names or ():
        if name not in parts:
            raise InputError(f"--parts: expected some of {', '.join(parts)}, found {name!r}")
    return {name: parts[name] for name in names or parts}


def run(parts: RunContents) -> tuple[list[Row], dict[str, str]]:
    """The rows of the parts, and why parts were skipped."""
    rows, skipped = [], {}
    with tqdm(parts.items(), unit="part") as bar:
        for name, functions in bar:
            bar.set_description(name)
            try:
                rows += [function() for function in functions]
            except ModuleNotFoundError as missing:
                module = (missing.name or "").partition(".")[0]
                if module not in table.PEERS:
                    raise
                skipped[name] = f"{module} is not installed; pip install -e .[bench]"
            except Skipped as why:
                skipped[name] = str(why)
    return rows, skipped


def main() -> None:
    """Entry point."""
    parts = ON_CPU if jax.default_backend() == "cpu" else ON_ACCELERATOR
    if CHOSEN.value == ["list"]:
        print("\n".join(parts))
        return
    chosen, out = choose(parts, CHOSEN.value), Path(OUT.value)
    load = os.getloadavg()[0]
    rows, skipped = run(chosen)
    document = table.document(rows, skipped, load)
    write_json(out, document)
    print(table.markdown(rows, skipped, document))


if __name__ == "__main__":
    command.run(main, "interrupted; nothing was written")
