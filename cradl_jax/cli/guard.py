"""Run a command: report a fault in one line, end at a signal, exit with a status.

0: done; 1: done, but not for all that was asked; 2: something given is wrong, or disk or memory
do not suffice; 75: ended by SIGTERM before it was done, the same command continues; 130: the same
by Ctrl-C.
"""

import os
import re
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any, NoReturn, TextIO

from cradl_jax.cli import tuning
from cradl_jax.cli.interruption import REQUEUE, Terminated, end_at_once
from cradl_jax.errors import InputError
from cradl_jax.storage.files import no_space

INTERRUPTED = "interrupted; the same command (training: with --resume) continues from what is kept"
OTHER_MACHINE = "use a device or a machine with more"
OLDEST_JAX = (0, 7)  # as in pyproject.toml
EXHAUSTED = "RESOURCE_EXHAUSTED"  # XLA's word for memory that a device does not have


class Unbroken:
    """A text stream that never fails a command: its reader may be gone, its letters few.

    What nobody reads any more (`| head -1`) is dropped, and a letter that the stream's encoding
    lacks is written as its code.
    """

    def __init__(self, stream: TextIO):
        """Write to `stream`."""
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def write(self, text: str) -> int:
        """Write `text`, or drop it."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            return self._drop(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop("")

    def _drop(self, text: str) -> int:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        """Return what the stream has beside."""
        return getattr(self._stream, name)


def keep_streams() -> None:
    """Put `Unbroken` streams in place of standard output and error."""
    sys.stdout, sys.stderr = Unbroken(sys.stdout), Unbroken(sys.stderr)  # type: ignore[assignment]


def run(
    main: Callable[[], None], interrupted: str = INTERRUPTED, smaller: str = OTHER_MACHINE
) -> None:
    """Call `main`, whose faults become messages and exit statuses.

    Args:
        main: the command, which imports JAX.
        interrupted: what to say after SIGTERM and Ctrl-C.
        smaller: what to do where memory does not suffice.
    """
    warnings.filterwarnings("ignore", module="nibabel")  # a fault is one message
    sys.unraisablehook = _show_unraisable
    tuning.keep_compiled()
    end_at_once(interrupted)
    try:
        require_jax()
        main()
    except (KeyboardInterrupt, Terminated) as signal:
        print(interrupted, file=sys.stderr)
        sys.exit(REQUEUE if isinstance(signal, Terminated) else 130)
    except Exception as fault:
        message = in_words(fault, smaller)
        if message is None:
            raise
        refuse(message)


def require_jax() -> None:
    """Raise an `InputError` unless a JAX is installed that this package runs with."""
    try:
        found = metadata.version("jax")
    except metadata.PackageNotFoundError:
        found = "none"
    numbers = re.match(r"(\d+)\.(\d+)", found)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST_JAX:
        raise InputError(
            f"JAX: expected version {'.'.join(map(str, OLDEST_JAX))} or later, found {found}; "
            "pip install -r requirements.txt"
        )


def refuse(message: str) -> NoReturn:
    """Exit with status 2 for what was given."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def in_words(fault: Exception, smaller: str) -> str | None:
    """Describe a fault that is not a mistake of the program; return None for one that is."""
    if isinstance(fault, InputError):
        return str(fault)
    if isinstance(fault, MemoryError) or _exhausted(fault):
        first_line = (str(fault) or type(fault).__name__).splitlines()[0]
        return f"not enough memory ({first_line}); {smaller}"
    return no_space(fault)


def _exhausted(fault: Exception) -> bool:
    jax = sys.modules.get("jax")  # a fault of JAX needs JAX
    return jax is not None and (
        isinstance(fault, jax.errors.JaxRuntimeError) and EXHAUSTED in str(fault)
    )


def _show_unraisable(ignored: "sys.UnraisableHookArgs") -> None:
    """Show a fault that no caller can get, unless it is a consequence of one that orbax raises.

    A write that fails closes the event loop to which threads of tensorstore still report theirs.
    """
    if str(ignored.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(ignored)
