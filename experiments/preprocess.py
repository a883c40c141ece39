"""Check every scan of a study and cut it into slices, a store for each data set.

    python -m experiments.preprocess --config=configs/phantom.py [--workdir=runs/phantom]

Reads the data sets `config.data.sets`; writes for each `<workdir>/splits/<name>.csv`, which subject
is in which split, and `<workdir>/slices/<name>`. Stores that were made from the same scans with the
same settings are kept. A list of splits, of an earlier run or another group, is used again by
`--config.data.sets.<name>.split_file=list.csv`. A killed command goes on with the scan it was at.

With --shard=3/8 it slices the third, eleventh, ... scan of each data set, for job arrays; whichever
of the eight ends last completes the stores, as does the command without --shard after them.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from experiments.study import app

SHARD = flags.DEFINE_string("shard", None, "i/n: slice the i-th of n shares of the scans.")


def main(config: ConfigDict, workdir: Path) -> None:
    """Slice the scans, or a shard of them."""
    from experiments.study import preprocessing  # imports the library

    preprocessing.preprocess(config, workdir, preprocessing.shard_named(SHARD.value))


if __name__ == "__main__":
    app.run(main)
