"""The exceptions for faults in what a user gave: a file, a setting, a run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LONGEST = 800  # characters of one fault; a longer one loses its middle
LONGEST_CAUSE = 200


class InputError(ValueError):
    """An error that names the file or setting, what was expected, what was found, and what to do.

    A fault is one line, whatever the names in it hold; several are a list. Entry points print it
    without a traceback and exit with status 2.
    """

    def __init__(self, *faults: str):
        """Take one fault, or several that were found at once."""
        super().__init__(*map(_one_line, faults))

    def __str__(self) -> str:
        """Return the fault, or the list of all."""
        if len(self.args) == 1:
            return self.args[0]
        return "\n".join([f"{len(self.args)} faults:", *(f"  - {fault}" for fault in self.args)])


class Diverged(InputError):
    """Training met a number that is not finite.

    Attributes:
        steps: number of the step that failed, from 1; several where it is unknown which one did.
        rows: the training slices of their batches, [B]; empty where the validation loss failed.
    """

    def __init__(self, steps: Sequence[int], rows: "np.ndarray", problem: str):
        """Say what was found at a step, or at one of several."""
        which = f"step {steps[0]}" if len(steps) == 1 else f"one of steps {steps[0]} to {steps[-1]}"
        super().__init__(f"{which}: expected finite numbers, found {problem}")
        self.steps = steps
        self.rows = rows


def cause(fault: BaseException) -> str:
    """Describe an exception of another package in one line that fits into a fault."""
    text = " ".join(f"{type(fault).__name__}: {fault}".split())
    return text if len(text) <= LONGEST_CAUSE else text[: LONGEST_CAUSE - 3] + "..."


def _one_line(fault: str) -> str:
    """Escape what is not printable, and leave out the middle of a text that is too long."""
    half = LONGEST // 2 - 3
    if len(fault) > LONGEST:
        fault = f"{fault[:half]} ... {fault[-half:]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in fault)
