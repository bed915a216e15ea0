"""The text of a certificate's subject."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetrad.tls.subjects import matches, subject_of


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([], ""),
        (
            [("countryName", "KR"), ("organizationName", "a, b"), ("commonName", "x")],
            r"CN=x,O=a\, b,C=KR",
        ),
        ([("commonName", '"+,;<>\\')], r"CN=\"\+\,\;\<\>\\"),
        ([("commonName", "#1 ")], "CN=\\#1\\ "),
        ([("commonName", " x")], "CN=\\ x"),
        ([("commonName", " ")], "CN=\\ "),
        ([("commonName", "é\n\0")], r"CN=é\0A\00"),
        ([("emailAddress", "a@b")], "emailAddress=a@b"),
    ],
)
def test_a_subject_is_formatted_as_in_rfc_4514(parts: list[tuple[str, str]], text: str) -> None:
    """No value can pass for another part, or for another line."""
    assert subject_of({"subject": tuple((part,) for part in parts)}) == text


def test_a_part_of_a_subject_may_have_two_values() -> None:
    """They are joined by a plus sign."""
    part = (("commonName", "x"), ("userId", "y"))
    assert subject_of({"subject": (part,)}) == "CN=x+UID=y"


@pytest.mark.parametrize(
    ("subject", "pattern"),
    [
        ("CN=monitor,O=Ops", "*,O=Ops"),
        ("CN=monitor,O=Ops", "CN=monitor,*"),
        ("CN=monitor,O=Ops", "CN=[a-z]onit?r,O=Ops"),
        (r"CN=x,O=a\, b", r"CN=x,O=a\, b"),
        (r"CN=x,O=a\, b", r"CN=x,O=a\2C b"),
        (r"CN=x,O=a\, b", "CN=x,O=a? b"),
        (r"CN=x,O=a\, b", "CN=x,O=a[!,] b"),
        (r"CN=x,O=a\, b", "CN=x,*"),
        (r"CN=x\\,O=Ops", "*,O=Ops"),
        (r"CN=\00A", "CN=?A"),
        ("CN=*", "CN=[*]"),
    ],
)
def test_a_pattern_matches_a_subject(subject: str, pattern: str) -> None:
    """As in a shell; an escape is one character."""
    assert matches(subject, pattern)


@pytest.mark.parametrize(
    ("subject", "pattern"),
    [
        (r"CN=eve,L=x\,O=Ops", "*,O=Ops"),
        (r"CN=eve,L=x\\\,O=Ops", "*,O=Ops"),
        (r"CN=eve\,O=Ops", "CN=eve,*"),
        (r"CN=eve\+UID=1", "*+UID=1"),
        (r"CN=eve\,O=Ops", "CN=eve?,O=Ops"),
        (r"CN=\2CO", "CN=*CO"),
        (r"CN=\0A", "CN=*A"),
        ("CN=monitor,O=Ops", "CN=MONITOR,*"),
        ("CN=monitor,O=Ops", "CN=monitor"),
        ("CN=x", "CN=x\\"),
    ],
)
def test_no_value_passes_for_another_part(subject: str, pattern: str) -> None:
    """Whatever its characters are."""
    assert not matches(subject, pattern)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["commonName", "localityName"]),
            st.text("ab,O=Ops+\\*?[]\n\ue02c", max_size=9),
        )
    )
)
def test_a_subject_matches_itself_and_no_part_more(parts: list[tuple[str, str]]) -> None:
    """A part that is not there is not found in the values of others."""
    subject = subject_of({"subject": tuple((part,) for part in parts)})
    escaped = re.sub(r"[\[*?]", lambda match: f"[{match[0]}]", subject)
    assert matches(subject, escaped)
    assert not matches(subject, "*,O=Ops")
    assert not matches(subject, "O=Ops*")
