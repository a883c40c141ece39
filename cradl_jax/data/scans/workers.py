"""Work on many scans at once."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from cradl_jax.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_scans(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    label: str,
    faults: list[str] | None = None,
) -> Iterator[Result]:
    """Yield `function` of each item in order, under a progress bar; an error drops the rest.

    Where a list of `faults` is given, an `InputError` adds to it instead, and the others go on.

    Threads suffice: decompression and array arithmetic release Python's lock. BLAS keeps to one
    thread in each, because its own threads, waiting for busy cores, slow products down tenfold.
    """

    def attempt(item: Item) -> Result | InputError:
        try:
            return function(item)
        except InputError as fault:
            if faults is None:
                raise
            return fault

    executor = ThreadPoolExecutor(workers)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            results = executor.map(attempt, items)
            for result in tqdm(results, desc=label, total=len(items), unit="scan"):
                if not isinstance(result, InputError):
                    yield result
                elif faults is not None:
                    faults += result.args
    finally:
        executor.shutdown(cancel_futures=True)
