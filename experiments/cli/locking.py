"""One process at a time works on a stage of a study; another waits, and then goes on."""

import functools
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import jax
from ml_collections import ConfigDict

from cradl_jax.storage import locks

FOLDER = ".locks"  # in the working directory


class exclusive(AbstractContextManager):
    """Let no other command do the same work meanwhile; as a block or around a stage of a study.

        with exclusive("the phantom", folder): ...

        @exclusive("densities of {}, seed {seed}")
        def fit(config, workdir, method): ...

    The processes of one distributed command count as one: the first, which alone writes, holds the
    lock.
    """

    def __init__(self, what: str, place: Path | None = None):
        """Name the work, and the folder that it is done in.

        Around a stage, a function of a config, a working directory, and more, that directory is
        the folder, and in the name `{}` stands for the third argument, `{seed}` for `config.seed`.
        """
        self.what, self.place = what, place

    def __enter__(self) -> None:
        """Wait until no other command is at this work."""
        assert self.place is not None, "a block needs a folder"
        path = self.place / FOLDER / f"{re.sub(r'[^0-9A-Za-z]+', '-', self.what)}.lock"
        follows = jax.distributed.is_initialized() and jax.process_index() != 0
        self.lock = nullcontext() if follows else locks.held(path, self.what)
        self.lock.__enter__()

    def __exit__(self, *fault) -> None:
        """Let the next one in."""
        self.lock.__exit__(*fault)

    def __call__(self, function: Callable) -> Callable:
        """Return the stage that holds the lock while it runs."""

        @functools.wraps(function)
        def run(config: ConfigDict, workdir: Path, *more, **named):
            with exclusive(self.what.format(*more, seed=config.get("seed")), workdir):
                return function(config, workdir, *more, **named)

        return run
