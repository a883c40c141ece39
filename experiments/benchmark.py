"""Time the hot parts against what a user would take instead, side by side in one run.

    python -m experiments.benchmark [--parts=simclr,em] [--out=benchmark.json]

Prints a Markdown table and writes the same as JSON. Every pair is first checked to compute the
same result. The extra `bench` installs the peers (`pip install -e ".[bench]"`); a part whose peer
is missing is skipped. On a GPU the parts are those of the paper's study. `--parts=list` names them.
"""

import os
from pathlib import Path

from absl import flags

from experiments.cli import command

CHOSEN = flags.DEFINE_list("parts", None, "Parts to time, by default all; `list` names them.")
OUT = flags.DEFINE_string("out", "benchmark.json", "JSON file to write.")


def main() -> None:
    """Time the parts, print the table and write it."""
    import jax

    from cradl_jax.storage.files import write_json
    from experiments.benchmarks import parts, table

    known = parts.ON_CPU if jax.default_backend() == "cpu" else parts.ON_ACCELERATOR
    if CHOSEN.value == ["list"]:
        print("\n".join(known))
        return
    chosen = parts.choose(known, CHOSEN.value)
    load = os.getloadavg()[0]
    rows, skipped = parts.run(chosen)
    document = table.document(rows, skipped, load)
    write_json(Path(OUT.value), document)
    print(table.markdown(rows, skipped, document))


if __name__ == "__main__":
    command.run(main, "interrupted; nothing was written")
