"""What every command does: parse its flags, report a fault in one line, exit with a status.

0: done; 1: done, but not for all that was asked; 2: something given is wrong, or disk or memory
do not suffice; 75: ended by SIGTERM before it was done, the same command continues; 130: the same
by Ctrl-C.
"""

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import jax
from absl import app, flags, logging

from cradl_jax.errors import InputError
from cradl_jax.files import no_space
from experiments import compiled
from experiments.interruption import REQUEUE, Terminated, end_at_once

INTERRUPTED = "interrupted; the same command (training: with --resume) continues from what is kept"
OTHER_MACHINE = "use a device or a machine with more"
EXHAUSTED = "RESOURCE_EXHAUSTED"  # XLA's word for memory that a device does not have


def run(
    main: Callable[[], None], interrupted: str = INTERRUPTED, smaller: str = OTHER_MACHINE
) -> None:
    """Parse the command line, then call `main`; a fault in what was given ends in exit status 2.

    Args:
        main: the command.
        interrupted: what to say after SIGTERM and Ctrl-C.
        smaller: what to do where memory does not suffice.
    """

    def guarded(_: Sequence[str]) -> None:
        logging.set_verbosity(logging.FATAL)  # what a library logs as an error it raises, too
        compiled.keep()
        end_at_once(interrupted)
        try:
            main()
        except (KeyboardInterrupt, Terminated) as signal:
            print(interrupted, file=sys.stderr)
            sys.exit(REQUEUE if isinstance(signal, Terminated) else 130)
        except Exception as fault:
            said = in_words(fault, smaller)
            if said is None:
                raise
            _refuse(said)

    app.run(guarded, flags_parser=_parse)


def _parse(arguments: Sequence[str]) -> Sequence[str]:
    try:
        rest = flags.FLAGS(arguments)
    except (flags.Error, TypeError) as fault:
        _refuse(f"{fault}; see --help")
    except (AttributeError, KeyError) as fault:  # what ml_collections raises
        found = str(fault).strip("\"'")
        _refuse(f"--config: expected a setting that the config has, found {found}")
    except SystemExit:  # --help, after which absl exits with 1
        sys.exit(0)
    if len(rest) > 1:
        _refuse(f"unknown argument {rest[1]!r}; every option starts with --")
    return rest


def in_words(fault: Exception, smaller: str) -> str | None:
    """What to say of a fault that is not a mistake of the program, None of one that is."""
    if isinstance(fault, InputError):
        return str(fault)
    if isinstance(fault, MemoryError) or (
        isinstance(fault, jax.errors.JaxRuntimeError) and EXHAUSTED in str(fault)
    ):
        found = (str(fault) or type(fault).__name__).splitlines()[0]
        return f"not enough memory ({found}); {smaller}"
    return no_space(fault)


def _refuse(fault: str) -> NoReturn:
    print(f"error: {fault}", file=sys.stderr)
    sys.exit(2)
