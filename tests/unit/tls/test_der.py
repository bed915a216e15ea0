"""DER: elements, and the parts of revocation lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetrad.tls import der


def element(tag: int, content: bytes) -> bytes:
    """Return an element of DER."""
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 128 + size]) + length.to_bytes(size, "big") + content


def sequence(*parts: bytes) -> bytes:
    """Return a sequence."""
    return element(0x30, b"".join(parts))


VERSION, ALGORITHM, ISSUER = element(2, b"\1"), sequence(b""), sequence(b"CA")
NOW, END = element(0x17, b"261129000000Z"), element(0x18, b"20511129000000Z")


def crl(*parts: bytes) -> bytes:
    """Return a revocation list without a signature."""
    return sequence(sequence(*parts), ALGORITHM)


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=70000)), max_size=3))
def test_elements_are_read_in_order(contents: list[tuple[int, bytes]]) -> None:
    """With lengths of one, two and more bytes."""
    wholes = [element(*one) for one in contents]
    found = list(der.elements(b"".join(wholes)))
    assert found == [
        (tag, whole, content) for (tag, content), whole in zip(contents, wholes, strict=True)
    ]


@pytest.mark.parametrize("data", [b"\x30", b"\x30\x05abc", b"\x30\x82\x01", b"\x30\x84"])
def test_an_incomplete_element_is_an_error(data: bytes) -> None:
    """Wherever it is cut."""
    with pytest.raises(ValueError, match="not complete"):
        list(der.elements(data))


def test_a_crl_names_certificates_by_issuer_and_serial() -> None:
    """As a certificate of the same CA does, and one of another CA does not."""
    serial = element(2, b"\7")
    ids = list(
        der.revoked_ids(crl(VERSION, ALGORITHM, ISSUER, NOW, END, sequence(sequence(serial, NOW))))
    )
    signed = [serial, ALGORITHM, ISSUER, sequence(NOW, END), sequence(b"CN"), sequence(b"key")]
    v3 = sequence(sequence(element(0xA0, VERSION), *signed), ALGORITHM)
    v1 = sequence(sequence(*signed), ALGORITHM)
    assert [der.certificate_ids(v3)[1]] == [der.certificate_ids(v1)[1]] == ids
    signed[2] = sequence(b"other")
    assert der.certificate_ids(sequence(sequence(*signed), ALGORITHM))[1] not in ids


@pytest.mark.parametrize(
    ("parts", "end"),
    [
        ([ALGORITHM, ISSUER, NOW], None),
        ([ALGORITHM, ISSUER, NOW, END], "20511129000000Z"),
        ([VERSION, ALGORITHM, ISSUER, NOW, END, element(0xA0, b"")], "20511129000000Z"),
    ],
)
def test_a_crl_may_revoke_nothing(parts: list[bytes], end: str | None) -> None:
    """The second time is its end, which it may not have."""
    assert list(der.revoked_ids(crl(*parts))) == []
    assert der.next_update(crl(*parts)) == end
