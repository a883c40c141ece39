"""Check a study's data before anything runs: what is there, what is wrong, what it will take.

    python -m experiments.check --config=configs/phantom.py [--workdir=FOLDER] [--page=FILE]

Reads the lists of scans, all headers, and the masks of anomalous data sets. Prints for each data
set its subjects, scans and splits, how the scans lie, and how many are annotated; then the disk and
memory that the study needs, and how long training takes here, estimated from a few steps on random
slices. Faults are listed at the end, and the exit status is 2. With --page it also reads all
scans, and writes a page with a picture and measures of each, those first that are unlike the
training scans; without it nothing is written, and faults of the voxels of scans are found by
experiments.preprocess.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from experiments.study import app

PAGE = flags.DEFINE_string("page", None, "HTML file to write, with a picture of every scan.")


def main(config: ConfigDict, workdir: Path) -> None:
    """Check all data sets, then say what the study will take."""
    from cradl_jax.storage.files import require_writable  # both import the library
    from experiments.study import checking

    page = Path(PAGE.value).expanduser() if PAGE.value else None
    if page is not None:
        require_writable(page.parent, "--page")
    checking.check(config, workdir, page)


if __name__ == "__main__":
    app.run(main)
