"""SIGTERM and Ctrl-C: a stage ends at once, or first brings to an end what it is at."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Terminated(BaseException):
    """SIGTERM, with which a scheduler takes a job's machine away; as Ctrl-C, no `Exception`."""


def end_at_once() -> None:
    """From now on SIGTERM raises `Terminated`, as Ctrl-C raises KeyboardInterrupt."""
    signal.signal(signal.SIGTERM, _raise)


def _raise(number: int, _) -> None:
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Note a signal instead of being ended by it; a second one ends at once.

    Yields:
        Whether a signal came. The block should end soon after, and then raises what the signal
        would have raised.
    """
    received = []

    def note(number: int, frame) -> None:
        if received:
            _raise(number, frame)
        received.append(number)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        _raise(received[0], None)
