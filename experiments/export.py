"""Pack a trained run into one file, to be kept, sent, or used on another machine.

    python -m experiments.export --run=runs/phantom/seed0/cradl --out=runs/cradl.safetensors

The file holds the network, its densities, thresholds, settings and manifest, and not the
optimizer's state; experiments.predict and cradl_jax.load_run read it like the folder. It is a
safetensors file with metadata: reading it executes nothing.

A model card is in it too, and beside it as Markdown (runs/cradl.md), the README.md of a repository
on a model hub: data, intended use and limits, metrics with intervals, thresholds, licence, how to
load it. State the licence of the weights with --license, as in cc-by-4.0.
"""

from pathlib import Path

from absl import flags

import cradl_jax
from cradl_jax.errors import InputError
from experiments.cli import command

RUN = flags.DEFINE_string("run", None, "The folder of a run with its thresholds.", required=True)
OUT = flags.DEFINE_string("out", None, "The file to write.", required=True)
LICENSE = flags.DEFINE_string(
    "license", "unknown", "Licence of the weights, as hf.co/docs/hub/repositories-licenses has it."
)


def main() -> None:
    """Write the run to one file, its card beside it."""
    from experiments.study import model_card  # imports JAX

    out = Path(OUT.value).expanduser()
    if out.is_dir():
        raise InputError(
            f"{out}: expected the name of a file, found a folder; add one, cradl.safetensors"
        )
    source = Path(RUN.value).expanduser()
    beside = model_card.export(source, cradl_jax.load_run(source).contents, out, LICENSE.value)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB\n{beside}: its model card")


if __name__ == "__main__":
    command.run(main)
