"""What every command does: parse its flags, report a fault in one line, exit with a status.

0: done; 1: done, but not for all that was asked; 2: something given is wrong, or disk or memory
do not suffice; 75: ended by SIGTERM before it was done, the same command continues; 130: the same
by Ctrl-C.
"""

import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags, logging

from cradl_jax.errors import InputError, cause
from cradl_jax.storage.files import no_space
from cradl_jax.storage.reading import check_file
from experiments.cli import compiled
from experiments.cli.interruption import REQUEUE, Terminated, end_at_once

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
    warnings.filterwarnings("ignore", module="nibabel")  # a fault is one message

    def guarded(_: Sequence[str]) -> None:
        logging.set_verbosity(logging.FATAL)  # what a library logs as an error it raises, too
        sys.unraisablehook = _show_unraisable
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


def _show_unraisable(ignored) -> None:
    """A fault that no caller can get, but not a consequence of one that orbax raises.

    A write that fails closes the event loop to which threads of tensorstore still report theirs.
    """
    if str(ignored.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(ignored)


def _parse(arguments: Sequence[str]) -> Sequence[str]:
    config = re.search(r"(?:^|\0)--?config[=\0]([^\0]*)", "\0".join(arguments))
    try:
        if config:  # what is no file may never end
            check_file(Path(config[1].partition(":")[0]), "a config's file")
        rest = flags.FLAGS(arguments)
    except InputError as fault:
        _refuse(str(fault))
    except SystemExit:  # --help, after which absl exits with 1
        sys.exit(0)
    except flags.Error as fault:
        _refuse(f"{InputError(_last_line(fault))}; see --help")
    except Exception as fault:  # a config is code, which may raise anything
        _refuse(str(_of_config(config[1] if config else "", fault)))
    if len(rest) > 1:
        _refuse(str(InputError(f"unknown argument {rest[1]!r}; every option starts with --")))
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


def _last_line(fault: Exception) -> str:
    """The message; of a traceback, in which ml_collections wraps some, its end."""
    first, *_, last = (str(fault).strip() or repr(fault)).splitlines() * 2
    return f"{first} {last}" if "Traceback" in str(fault) else str(fault)


def _of_config(config: str, fault: Exception) -> InputError:
    """What the config's own code, or an override of a setting that it lacks, raised."""
    lines = [f.lineno for f in traceback.extract_tb(fault.__traceback__) if f.filename == config]
    if lines or isinstance(fault, SyntaxError) or "get_config" in str(fault):
        place = f", line {lines[-1]}" if lines else ""
        return InputError(
            f"{config}{place}: expected a Python file whose get_config() gives the settings, found "
            f"{cause(fault)}; start from configs/default.py"
        )
    found = str(fault).strip("\"'")
    return InputError(
        f"--config: expected a setting that the config has, found {found}; see --help"
    )


def _refuse(fault: str) -> NoReturn:
    print(f"error: {fault}", file=sys.stderr)
    sys.exit(2)
