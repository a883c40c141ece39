"""What every command does: parse its flags, then run it (see `cradl_jax.cli.guard`).

A command imports the library in its `main`, after its flags are parsed: --help and a mistyped flag
are answered at once.
"""

import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from cradl_jax.cli import guard
from cradl_jax.errors import InputError, cause


def run(
    main: Callable[[], None],
    interrupted: str = guard.INTERRUPTED,
    smaller: str = guard.OTHER_MACHINE,
) -> None:
    """Parse the command line, then call `main`; see `guard.run`."""

    def guarded(_: Sequence[str]) -> None:
        logging.set_verbosity(logging.FATAL)  # what a library logs as an error it raises, too
        guard.run(main, interrupted, smaller)

    guard.keep_streams()
    app.run(guarded, flags_parser=parse)


def parse(arguments: Sequence[str]) -> Sequence[str]:
    """Parse the flags; a fault in them ends in exit status 2."""
    arguments = [re.sub(r"^--?config=~", f"--config={Path.home()}", one) for one in arguments]
    config = re.search(r"(?:^|\0)--?config[=\0]([^\0]*)", "\0".join(arguments))
    try:
        if config:
            from cradl_jax.storage.reading import check_file  # imports NumPy

            check_file(Path(config[1].partition(":")[0]), "a config's file")  # a pipe has no end
        rest = flags.FLAGS(arguments)
    except InputError as fault:
        guard.refuse(str(fault))
    except SystemExit:  # --help, after which absl exits with 1
        sys.exit(0)
    except flags.Error as fault:
        guard.refuse(f"{InputError(_one_line(fault))}; see --help")
    except Exception as fault:  # a config is code, which may raise anything
        guard.refuse(str(_of_config(config[1] if config else "", fault)))
    if len(rest) > 1:
        guard.refuse(str(InputError(f"unknown argument {rest[1]!r}; every option starts with --")))
    return rest


def _one_line(fault: Exception) -> str:
    """Return the message; of a traceback, in which ml_collections wraps some, both ends."""
    lines = (str(fault).strip() or repr(fault)).splitlines()
    if "Traceback" in str(fault):
        return f"{lines[0]} {lines[-1]}"
    return "; ".join(line.strip().rstrip(".") for line in lines).replace(" ?", "?")


def _of_config(config: str, fault: Exception) -> InputError:
    """Describe what the config's own code, or an override of a setting that it lacks, raised."""
    lines = [f.lineno for f in traceback.extract_tb(fault.__traceback__) if f.filename == config]
    if lines or isinstance(fault, SyntaxError) or "get_config" in str(fault):
        place = f", line {lines[-1]}" if lines else ""
        return InputError(
            f"{config}{place}: expected a Python file whose get_config() gives the settings, found "
            f"{cause(fault)}; start from configs/default.py"
        )
    while fault.args and isinstance(fault.args[0], Exception):  # as ml_collections wraps them
        fault = fault.args[0]
    message = " ".join(str(fault.args[0] if fault.args else fault).split())
    return InputError(
        f"--config: expected a setting that the config has, found {message}; see --help"
    )
