"""The highest of more values than memory holds."""

from collections.abc import Iterable

import numpy as np

from cradl_jax.errors import InputError


def highest(chunks: Iterable[np.ndarray], n: int) -> tuple[np.ndarray, int]:
    """Return the `n` highest values of healthy scans, descending, and how many values there are.

    Args:
        chunks: arrays of any shape, read once; memory is taken for one chunk and twice `n` values.
        n: one or more; where there are fewer values, all are returned.

    Raises:
        InputError: a value is not finite.
    """
    kept, lowest, seen = np.empty(0, np.float32), -np.inf, 0
    for chunk in chunks:
        values = np.ravel(chunk)
        if not np.isfinite(values).all():
            raise InputError(
                f"healthy scans: expected finite scores and heatmaps, found "
                f"{np.count_nonzero(~np.isfinite(values))} of {values.size} values that are not; "
                "a diverged training or an overflow in the density gives such values"
            )
        seen += values.size
        kept = np.concatenate([kept, values[values > lowest]])
        if kept.size >= n:
            kept = np.partition(kept, kept.size - n)[kept.size - n :]
            lowest = kept[0]
    return np.sort(kept)[::-1], seen
