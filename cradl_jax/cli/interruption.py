"""SIGTERM and Ctrl-C: a stage ends at once, or first brings to an end what it is at."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

REQUEUE = 75  # exit status after SIGTERM: EX_TEMPFAIL of sysexits.h
GRACE = 10  # seconds after SIGTERM, in which Python may not have its turn
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Terminated(BaseException):
    """SIGTERM, with which a scheduler takes a job's machine away; as Ctrl-C, no `Exception`."""


def end_at_once(message: str) -> None:
    """From now on SIGTERM raises `Terminated`, as Ctrl-C raises KeyboardInterrupt.

    A computation of JAX, as all of EM, lets Python see a signal only when it is done: then the
    process says `message` and ends without clearing up, which loses no more than SIGKILL would.
    """
    signal.signal(signal.SIGTERM, _raise)
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno())
    threading.Thread(target=_insist, args=(reading, writing, message), daemon=True).start()


def _raise(number: int, _) -> None:
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _insist(signals: socket.socket, _: socket.socket, message: str) -> None:
    while signals.recv(1) != bytes([signal.SIGTERM]):
        pass
    time.sleep(GRACE)
    print(message, file=sys.stderr, flush=True)
    os._exit(REQUEUE)


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
    wakeup = signal.set_wakeup_fd(-1)
    try:
        yield lambda: bool(received)
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        _raise(received[0], None)
