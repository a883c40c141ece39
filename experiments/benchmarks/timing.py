"""Time candidates in turn, and beside them, in the same rounds, what the hardware reaches."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from queue import Queue
from statistics import median
from threading import Semaphore, Thread
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

REPETITIONS = 5
PRODUCT = {"cpu": 3072, "gpu": 16384}  # side of the matrices that give the matrix rate
ELEMENTS = {"cpu": 1 << 27, "gpu": 1 << 30}  # of the array that gives the rate of memory
PAUSE = 0.2  # s before each turn, in which the threads of the last candidate fall asleep


def cores() -> int:
    """Count the cores that this process may use, fewer than all under `taskset`."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Times(NamedTuple):
    """Seconds of one candidate, one figure per repetition, in the order of the rounds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the median."""
        return median(self.seconds)

    @property
    def range(self) -> tuple[float, float]:
        """Return the smallest and the largest."""
        return min(self.seconds), max(self.seconds)

    def per(self, units: int) -> "Times":
        """Divide by the `units` that a repetition consists of."""
        return Times(tuple(s / units for s in self.seconds))

    def over(self, other: "Times") -> "Times":
        """Divide round by round, so that both sides met the same load of the machine."""
        return Times(tuple(a / b for a, b in zip(self.seconds, other.seconds, strict=True)))


def in_turn(
    candidates: Mapping[str, Callable[[], Any]], repetitions: int
) -> tuple[dict[str, Times], dict[str, Any]]:
    """Run the candidates one after the other, round by round: A B C, A B C, ...

    Wait for results that are computed asynchronously.

    Returns:
        The times of each candidate, and its last result.
    """
    seconds, results = {name: [] for name in candidates}, {}
    for _ in range(repetitions):
        for name, run in candidates.items():
            results.pop(name, None)
            time.sleep(PAUSE)
            started = time.perf_counter()
            results[name] = jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - started)
    return {name: Times(tuple(values)) for name, values in seconds.items()}, results


class Probe(NamedTuple):
    """Work that does nothing but use one resource of the hardware.

    Attributes:
        name: of the resource.
        unit: "FLOP" or "B".
        amount: work of one call, in that unit.
        run: the call.
    """

    name: str
    unit: str
    amount: float
    run: Callable[[], Any]


def matrix_products(dtype: Any = jnp.float32) -> Probe:
    """Return a probe that multiplies two square matrices: the highest rate a network can reach."""
    size = PRODUCT[jax.default_backend()]
    left, right = jax.random.normal(jax.random.key(0), (2, size, size), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(left, right))
    name = f"{left.dtype} matrix product of {size} x {size}"
    return Probe(name, "FLOP", 2 * size**3, lambda: product(left, right))


def memory() -> Probe:
    """Return a probe that reads an array and writes it in place."""
    scaled = jax.jit(lambda x: 1.0001 * x, donate_argnums=0)
    elements = ELEMENTS[jax.default_backend()]
    array = scaled(jnp.ones(elements))

    def scale() -> jax.Array:
        nonlocal array
        array = scaled(array)
        return array

    return Probe("reading and writing memory", "B", 8 * elements, scale)


def reports(run: Callable[[Callable[[Any], None]], Any]) -> Iterator[Any]:
    """Yield what `run(report)` passes to `report`, one at each `next`; `run` waits in between."""
    turn, reported = Semaphore(0), Queue()

    def report(value: Any) -> None:
        reported.put(value)
        turn.acquire()

    def work() -> None:
        turn.acquire()
        run(report)

    Thread(target=work, daemon=True).start()
    while True:
        turn.release()
        yield reported.get()
