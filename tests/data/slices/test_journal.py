"""A line of a journal carries its own checksum: a kill may have cut it, a disk changed it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cradl_jax.data.slices import journal

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=20)
@given(st.dictionaries(st.text(max_size=5).filter(lambda name: name != "sha256"), VALUES))
def test_values_with_their_checksum_come_back_from_json(values):
    read = json.loads(json.dumps(journal.with_checksum(values)))
    assert repr(journal.without_checksum(read)) == repr(values)
    with pytest.raises(ValueError, match="other than"):
        journal.without_checksum(read | {"one more": 1})
