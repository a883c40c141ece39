"""The one exception for faults in what a user gave: a file, a setting, a run."""


class InputError(ValueError):
    """Names the file or setting, what was expected, what was found, and what to do.

    Entry points print it without a traceback and exit with status 2.
    """
