import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.ubjson import encode
from udfs.models import ubjson
from udfs.models.ubjson import decode

integers = st.integers(-(2**63), 2**63 - 1)
columns = st.builds(
    np.array,
    st.lists(st.integers(0, 100)),
    st.sampled_from([">f4", "u1", ">i4", ">i8"]),
)
values = st.recursive(
    integers | st.text() | columns,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)


@examples(40)
@given(values)
def test_a_value_comes_back_as_it_was_written(value):
    assert encode(decode(encode(value))) == encode(value)


@examples(40)
@given(values, st.integers(0, 200))
def test_what_is_cut_off_is_refused(value, length):
    content = encode(value)
    with pytest.raises(ValueError, match=r"^(byte \d+: .+|the file ends within a value)$"):
        decode(content[: length % len(content)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"i\x01N", "byte 2: expected the end of the file"),
        (b"N", "byte 0: expected a value, got b'N'"),
        (b"Si\x01a", "the file ends within a value"),
        (b"Si" + b"a" * 9, "byte 1: expected b'L', got b'i'"),
        (b"[i\x01i\x01]" + b"\0" * 9, "byte 1: expected b'#L', got b'i\\x01'"),
        (b"[$SL" + b"\0" * 9, "byte 2: expected the type of an array, got b'S'"),
        (b"[$d#L" + b"\0" * 7 + b"\x02" + b"\0" * 7, "byte 13: a length of 2 exceeds the file"),
        (b"[$d#L\xff" + b"\0" * 7, "byte 13: a length of -72057594037927936 exceeds the file"),
        (b"{" + 2 * (encode("a")[1:] + b"i\x01") + b"}", "byte 23: the key 'a' is given twice"),
        (b"SL" + b"\0" * 7 + b"\x01\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        ((b"[#L" + b"\0" * 7 + b"\x01") * 1_000 + b"i\0", "byte 177: values are nested more than 16 deep"),
    ],
)
def test_what_xgboost_does_not_write_is_refused_by_its_place(content, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        decode(content)


def test_a_file_of_very_many_values_is_refused(monkeypatch):
    monkeypatch.setattr(ubjson, "MOST_VALUES", 10)
    assert decode(encode([1] * 9)) == [1] * 9
    with pytest.raises(ValueError, match="the file has more than 10 values"):
        decode(encode([1] * 10))
