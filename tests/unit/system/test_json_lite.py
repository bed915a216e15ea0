"""JSON in one line: every value is read back by the standard parser."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetrad.system import json_lite

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_what_is_written_is_read_back(value: object) -> None:
    """The standard parser returns the same value, with the same type."""
    read = json.loads(json_lite.encode(value))
    assert read == value
    assert type(read) is type(value)


@given(values)
def test_a_value_is_one_line_without_control_characters(value: object) -> None:
    """No text can break a line or control a terminal."""
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", json_lite.encode(value))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (1, "1"),
        (0.5, "0.5"),
        ('say "hi"\\', '"say \\"hi\\"\\\\"'),
        ("\x00\n\x7f\x9f é", '"\\u0000\\u000a\\u007f\\u009f é"'),
        ("~\xa0\u2028", '"~\xa0\u2028"'),
        ((1, "two", None), '[1,"two",null]'),
        ({"a": {"b": []}, "c": {}}, '{"a":{"b":[]},"c":{}}'),
    ],
)
def test_a_value_is_written_without_spaces(value: object, written: str) -> None:
    """Constants, escapes and containers are written as in RFC 8259."""
    assert json_lite.encode(value) == written


def test_members_are_an_object_without_braces() -> None:
    """An object can be built from several parts."""
    assert json_lite.members({"a": 1, "b\n": "c"}) == '"a":1,"b\\u000a":"c"'
    assert json_lite.members({}) == ""
