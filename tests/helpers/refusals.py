"""What the tests of bad input share: how a fault must be named, and how soon."""

import signal
import warnings
from copy import deepcopy

import pytest

from cradl_jax.errors import LONGEST, InputError

SECONDS = 5  # that a message may take


@pytest.fixture(autouse=True)
def in_time():
    """Interrupt what hangs, which then fails."""

    def late(*_):
        raise TimeoutError(f"no answer within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refusal(function, *arguments) -> str:
    """Return the one line of the InputError that a call must raise, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # of other packages
        warnings.filterwarnings("ignore", module="nibabel")  # as `command.run` does
        with pytest.raises(InputError) as caught:
            function(*arguments)
    message = str(caught.value)
    assert message.isprintable(), "one line, without control characters"
    assert len(message) <= LONGEST
    return message


def put(content: dict, path: str, value) -> dict:
    """Return a copy of nested values with another value at a dotted path."""
    copy = deepcopy(content)
    *outer, last = path.split(".")
    inner = copy
    for name in outer:
        inner = inner[name]
    inner[last] = value
    return copy
