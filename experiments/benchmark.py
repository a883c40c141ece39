"""Time the hot parts against what a user would take instead, side by side in one run.

    python -m experiments.benchmark [--parts=simclr,em] [--out=benchmark.json]

Prints a Markdown table and writes the same as JSON. Every pair is first checked to compute the
same result. The extra `bench` installs the peers (`pip install -e ".[bench]"`); a part whose peer
is missing is skipped. On a GPU the parts are those of the paper's study. `--parts=list` names them.
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
from experiments.benchmarks.rows import Row, Skipped
from experiments.cli import command

CHOSEN = flags.DEFINE_list("parts", None, "Parts to time, by default all; `list` names them.")
OUT = flags.DEFINE_string("out", "benchmark.json", "JSON file to write.")

Parts = Mapping[str, Sequence[Callable[[], Row]]]

ON_CPU: Parts = {
    "simclr": (training.simclr, partial(training.simclr, training.PHANTOM, steps=25)),
    "vae": (training.vae, partial(training.vae, training.PHANTOM, steps=25)),
    "streaming": (streaming.streaming,),
    "augmentation": (volumes.augmentation,),
    "em": (densities.em_iteration,),
    "flow": (densities.flow,),
    "heatmaps": (localization.heatmaps,),
    "median": (localization.median,),
    "metrics": (voxels.metric_values,),
    "memory": (voxels.memory_above_stream,),
    "preprocessing": (volumes.preprocessing,),
    "phantom": (partial(volumes.phantom_volume, 2.0), partial(volumes.phantom_volume, 1.0)),
}

ON_ACCELERATOR: Parts = {
    "pretext": (partial(accelerator.pretext, "cradl"),),
    "vae": (partial(accelerator.pretext, "vae"),),
    "cevae": (partial(accelerator.pretext, "cevae"),),
    "scoring": (accelerator.scoring,),
    "em": (accelerator.em,),
    "phantom": (partial(volumes.phantom_volume, 2.0), partial(volumes.phantom_volume, 1.0)),
}


def choose(parts: Parts, names: Sequence[str] | None) -> Parts:
    """Return the named parts, or all of them without names.

    Raises:
        InputError: a name is not that of a part.
    """
    for name in names or ():
        if name not in parts:
            raise InputError(f"--parts: expected some of {', '.join(parts)}, found {name!r}")
    return {name: parts[name] for name in names or parts}


def run(parts: Parts) -> tuple[list[Row], dict[str, str]]:
    """Time the parts; return their rows, and for each skipped part the reason."""
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
                skipped[name] = f"{module} is not installed; pip install -e '.[bench]'"
            except Skipped as why:
                skipped[name] = str(why)
    return rows, skipped


def main() -> None:
    """Run the command."""
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
