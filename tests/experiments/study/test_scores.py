import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from experiments.study.scores import by_scan


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 7))
def test_rows_of_scans_come_whole_whatever_the_batches(lengths, size):
    scans = np.repeat([f"scan{n}" for n in range(len(lengths))], lengths)
    rows = np.arange(len(scans))
    batches = ({"rows": rows[first : first + size]} for first in range(0, len(rows), size))
    found = [scan["rows"] for scan in by_scan(batches, scans)]
    assert [len(scan) for scan in found] == lengths
    np.testing.assert_array_equal(np.concatenate(found), rows)
    assert next(batches, None) is None, "what is computed on the way is closed"
