"""Several processes that work as one, on one machine or many, over JAX's distributed runtime.

All run the same command on a working directory that all see. Every batch is split over the devices
of all (`cradl_jax.devices.parallel`); the first process alone writes, and tells the others what it
finds there. Messages go through the coordinator, a part of the first process, and not through the
devices: a process may wait as long as the first one works, and all end when one of them ends. A
single process takes the same path and talks to nobody.
"""

import inspect
import itertools
import json
import signal
import threading
from collections.abc import Callable
from typing import Any

import jax

from cradl_jax.errors import InputError

HEARTBEAT_SECONDS = 60  # without one from a process, the others end
SHUTDOWN_SECONDS = 15  # between the ends of the first and of the last process
MARGIN_SECONDS = 30  # for our own time-out to come before JAX's
POLL_MS = 1000  # between two looks for signals while waiting

_turns = itertools.count()


def start(coordinator: str | None, count: int | None, index: int | None, seconds: int) -> None:
    """Join the other processes; before anything is computed.

    Args:
        coordinator: host:port of the first process; None under SLURM or Open MPI, which tell it,
            as for the next two.
        count: number of processes.
        index: of this one, from 0.
        seconds: to wait for the others.

    Raises:
        InputError: nothing says how to find the others, or they are not there in time.
    """
    faults = []
    timeouts: dict[str, Any] = {
        "initialization_timeout": seconds + MARGIN_SECONDS,
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        "shutdown_timeout_seconds": SHUTDOWN_SECONDS,
    }
    accepted = inspect.signature(jax.distributed.initialize).parameters  # the last one is new
    timeouts = {name: value for name, value in timeouts.items() if name in accepted}

    def join() -> None:
        try:
            jax.distributed.initialize(coordinator, count, index, **timeouts)
        except (ValueError, TypeError, RuntimeError) as fault:
            faults.append(fault)

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    joining = threading.Thread(target=join, daemon=True)  # past its time-out JAX aborts, nameless
    joining.start()
    joining.join(seconds)
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # which JAX took for itself
    if joining.is_alive():
        raise InputError(
            f"{coordinator or 'SLURM or Open MPI'}: expected all processes to meet at this "
            f"coordinator within {seconds} s, found them missing; check that it is the "
            "address of process 0, that every process was started and that they reach it"
        )
    if faults:
        raise InputError(
            "--distributed: expected SLURM, Open MPI or all of --coordinator, --processes and "
            f"--process, found {faults[0]}"
        )


def is_first() -> bool:
    """Tell whether this process is the one that writes."""
    return jax.process_index() == 0


def all_gather(value: Any) -> list:
    """Return the plain `value` of every process, in their order, on each of them."""
    if jax.process_count() == 1:
        return [value]
    turn = next(_turns)
    _client().key_value_set(f"cradl/{turn}/{jax.process_index()}", json.dumps(value))
    return [json.loads(_await(f"cradl/{turn}/{i}")) for i in range(jax.process_count())]


def broadcast_from_first(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in the first process, a plain value; the others wait for it.

    Raises:
        InputError: `work` raised it; then in all processes.
    """
    if jax.process_count() == 1:
        return work()
    key = f"cradl/{next(_turns)}"
    if is_first():
        try:
            outcome = {"value": work()}
        except InputError as fault:
            outcome = {"faults": fault.args}
        _client().key_value_set(key, json.dumps(outcome))
    outcome = json.loads(_await(key))
    if "faults" in outcome:
        raise InputError(*outcome["faults"])
    return outcome["value"]


def assert_equal(facts: dict[str, Any]) -> None:
    """Raise an InputError in every process unless these plain facts are the same in all of them.

    The message names each process that differs from the first, and in what.
    """
    first, *others = all_gather(facts)
    differing = [
        f"{name}: process 0 has {first.get(name)!r}, process {index} has {other.get(name)!r}"
        for index, other in enumerate(others, start=1)
        for name in sorted(first.keys() | other.keys())
        if first.get(name) != other.get(name)
    ]
    if differing:
        raise InputError(
            f"processes disagree ({'; '.join(differing)}); start all with the same command, code "
            "and data"
        )


def _client() -> Any:
    """Return JAX's client of the coordinator, which has a public name in orbax alone."""
    from orbax.checkpoint import multihost

    return multihost.get_jax_distributed_client()


def _await(key: str) -> str:
    while True:
        try:
            return _client().blocking_key_value_get(key, POLL_MS)
        except jax.errors.JaxRuntimeError as fault:
            if "DEADLINE_EXCEEDED" not in str(fault):
                raise
