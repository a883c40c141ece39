"""One process at a time works on a stage of a study; another waits, and then goes on."""

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import jax
from ml_collections import ConfigDict

from cradl_jax.storage import locks

FOLDER = ".locks"  # in the working directory


@contextmanager
def exclusive(what: str, place: Path) -> Iterator[None]:
    """Let no other command do the same work in this folder while the block runs.

    The processes of one distributed command count as one: the first, which alone writes, holds the
    lock.
    """
    path = place / FOLDER / f"{re.sub(r'[^0-9A-Za-z]+', '-', what)}.lock"
    follows = jax.distributed.is_initialized() and jax.process_index() != 0
    with nullcontext() if follows else locks.held(path, what):
        yield


def exclusive_stage(what: str) -> Callable[[Callable], Callable]:
    """Decorate a stage of a study, a function of a config, a working directory, and more.

    No other command is then at it in that directory. In `what`, `{}` stands for the third argument,
    `{seed}` for `config.seed`.
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def run(config: ConfigDict, workdir: Path, *more, **named):
            with exclusive(what.format(*more, seed=config.get("seed")), workdir):
                return function(config, workdir, *more, **named)

        return run

    return decorate
