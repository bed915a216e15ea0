"""The hints at the way out of errors that only some machines have."""

from __future__ import annotations

import errno
import os

import pytest

from tetrad.launch import preflight

_SANDBOX = "the kernel or a sandbox (RestrictAddressFamilies= in the unit)"


@pytest.mark.parametrize(
    ("number", "path", "hint"),
    [
        (
            errno.EAFNOSUPPORT,
            "",
            f"{_SANDBOX} has no such addresses; 0.0.0.0 is all of IPv4",
        ),
        (
            errno.EFBIG,
            None,
            "raise the limit of file sizes (ulimit -f, or LimitFSIZE= in the unit)",
        ),
    ],
)
def test_an_error_has_the_way_out(number: int, path: str | None, hint: str) -> None:
    """Of a kernel without IPv6, a limit of file sizes."""
    text = preflight.problem_of("[::]:1", OSError(number, os.strerror(number)), path).text
    assert text == f"[::]:1: {os.strerror(number).lower()}; {hint}"
