"""Work on many scans at once."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_scans(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, label: str
) -> Iterator[Result]:
    """Yield `function` of each item in order, under a progress bar; an error drops the rest.

    Threads suffice: decompression and array arithmetic release Python's lock. BLAS keeps to one
    thread in each, because its own threads, waiting for busy cores, slow products down tenfold.
    """
    executor = ThreadPoolExecutor(workers)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield from tqdm(
                executor.map(function, items), desc=label, total=len(items), unit="scan"
            )
    finally:
        executor.shutdown(cancel_futures=True)
