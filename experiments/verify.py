"""Verify that a study is complete and unchanged, and that its parts belong together.

    python -m experiments.verify --run=RUN

RUN is a study's working directory, the folder of a run, or a file that experiments.export wrote.
Prints a line for each check: ok, or wrong with the files and what to do. The exit status is 0 if
all checks passed, else 1. Nothing is written.
"""

import sys
from pathlib import Path

from absl import flags

from experiments.cli import command

RUN = flags.DEFINE_string(
    "run", None, "A working directory, a run's folder, or an exported run.", required=True
)


def main() -> None:
    """Run the checks and print a line each."""
    from tqdm import tqdm

    from cradl_jax.devices import machine  # imports JAX
    from cradl_jax.runs import verification

    machine.devices_in_words()  # what the machine lacks is no fault of the files
    path, wrong, done = Path(RUN.value).expanduser(), 0, 0
    size = verification.n_bytes(path)
    with tqdm(desc="hashing", total=size, unit="B", unit_scale=True, leave=False) as bar:
        for check in verification.checks(path, bar.update):
            done += 1
            wrong += bool(check.faults)
            tqdm.write(f"{'wrong' if check.faults else 'ok   '} {check.what}")
            for fault in check.faults:
                tqdm.write(f"      {fault}")
    if wrong:
        print(f"{wrong} of {done} checks failed; what rests on these parts was not checked")
        sys.exit(1)
    print(f"all {done} checks passed")


if __name__ == "__main__":
    command.run(main)
