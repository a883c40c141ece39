"""The exceptions for faults in what a user gave: a file, a setting, a run."""

import numpy as np


class InputError(ValueError):
    """Names the file or setting, what was expected, what was found, and what to do.

    Entry points print it without a traceback and exit with status 2.
    """


class Diverged(InputError):
    """Training met a number that is not finite.

    Attributes:
        step: number of the step that failed, from 1.
        rows: the training slices of its batch, [B]; empty where the validation loss failed.
    """

    def __init__(self, step: int, rows: np.ndarray, found: str):
        """Say what was found at a step."""
        super().__init__(f"step {step}: expected finite numbers, found {found}")
        self.step = step
        self.rows = rows
