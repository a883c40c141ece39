"""Flags of the commands that several processes run together, and how these meet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

flags.disclaim_key_flags()  # they are those of the command that calls `joined`, in its --help
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Work with other processes; SLURM and Open MPI tell of them."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of process 0, a free port there; needed only outside SLURM and Open MPI.",
)
PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes, with --coordinator.")
PROCESS = flags.DEFINE_integer("process", None, "Rank of this process, from 0, with --coordinator.")
MEET_SECONDS = flags.DEFINE_integer("meet_seconds", 120, "How long processes wait for the others.")
FLAGS = (DISTRIBUTED, COORDINATOR, PROCESSES, PROCESS, MEET_SECONDS)


def declare() -> None:
    """Name the flags in the command's --help."""
    for flag in FLAGS:
        flags.declare_key_flag(flag.name)


def join(about: dict[str, Any]) -> None:
    """Meet the other processes, if there are any, and check that they are to do the same.

    `about` says what, in plain values.

    Raises:
        InputError: they are not there, or are to do something else; see `processes`.
    """
    if DISTRIBUTED.value or COORDINATOR.value:
        from cradl_jax.devices import processes  # imports JAX
        from cradl_jax.storage.manifest import flat, versions

        processes.start(COORDINATOR.value, PROCESSES.value, PROCESS.value, MEET_SECONDS.value)
        processes.assert_equal(flat(about | {"versions": versions()}))


def show_devices() -> None:
    """Print in the first process what computes.

    Raises:
        InputError: nothing does; see `machine.devices_in_words`.
    """
    from cradl_jax.devices import machine, processes  # imports JAX

    words = machine.devices_in_words()
    if processes.is_first():
        print(f"devices: {words}", flush=True)


def joined(main: Callable[[ConfigDict, Path], None]) -> Callable[[ConfigDict, Path], None]:
    """Return `main(config, workdir)`, called once the processes have met."""
    declare()

    def together(config: ConfigDict, workdir: Path) -> None:
        join({"config": config.to_dict(), "workdir": str(workdir)})
        show_devices()
        main(config, workdir)

    return together
