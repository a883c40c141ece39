"""What every command does: parse its flags, report a fault in one line, exit with a status.

0: done; 1: done, but not for all that was asked; 2: something given is wrong; 130: interrupted.
"""

import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging

from cradl_jax.errors import InputError, cause
from cradl_jax.reading import check_file
from experiments import compiled

INTERRUPTED = "interrupted; the same command continues from what is finished"


def run(main: Callable[[], None], interrupted: str = INTERRUPTED) -> None:
    """Parse the command line, then call `main`; an `InputError` ends in exit status 2.

    Args:
        main: the command.
        interrupted: what to say after Ctrl-C.
    """
    warnings.filterwarnings("ignore", module="nibabel")  # a fault is one message

    def guarded(_: Sequence[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        compiled.keep()
        try:
            main()
        except InputError as fault:
            _refuse(str(fault))
        except KeyboardInterrupt:
            print(interrupted, file=sys.stderr)
            sys.exit(130)

    app.run(guarded, flags_parser=_parse)


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
