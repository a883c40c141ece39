"""The highest values of a stream against those of all values sorted at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cradl_jax.errors import InputError
from cradl_jax.evaluation.extremes import highest

FINITE = st.floats(-3, 3, width=32)


@given(arrays(np.float32, st.integers(0, 60), elements=FINITE), st.integers(1, 70), st.data())
def test_they_are_those_of_all_values_sorted_whatever_the_chunks(values, n, data):
    ends = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=5)))
    found, count = highest(np.split(values, ends), n)
    np.testing.assert_array_equal(found, np.sort(values)[::-1][:n])
    assert count == len(values) and found.dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(value):
    chunks = [np.zeros((2, 3)), np.array([[1, value, 0]])]
    with pytest.raises(InputError, match="found 1 of 3 values that are not"):
        highest(chunks, 2)
