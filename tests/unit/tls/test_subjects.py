"""The text of a certificate's subject."""

from __future__ import annotations

import pytest

from tetrad.tls.subjects import subject_of


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
