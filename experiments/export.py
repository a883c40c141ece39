"""Pack a trained run into one file, to be kept, sent, or used on another machine.

    python -m experiments.export --run=runs/phantom/seed0/cradl --out=runs/cradl.safetensors

The file holds the network, its densities, thresholds, settings and manifest, and not the
optimizer's state; experiments.predict and cradl_jax.load_run read it like the folder. It is a
safetensors file with metadata: reading it executes nothing.
"""

from pathlib import Path

from absl import flags

import cradl_jax
from cradl_jax.errors import InputError
from experiments.cli import command

RUN = flags.DEFINE_string("run", None, "The folder of a run with its thresholds.", required=True)
OUT = flags.DEFINE_string("out", None, "The file to write.", required=True)


def main() -> None:
    """Write the run to one file."""
    from cradl_jax.runs import archive  # imports JAX

    out = Path(OUT.value).expanduser()
    if out.is_dir():
        raise InputError(
            f"{out}: expected the name of a file, found a folder; add one, cradl.safetensors"
        )
    archive.write(out, cradl_jax.load_run(RUN.value).contents)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    command.run(main)
