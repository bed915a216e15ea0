"""Calls of Python functions: how an exception is described."""

from __future__ import annotations

from tetrad.handler import python_call


def test_an_exception_is_described_in_one_line() -> None:
    """Line feeds are replaced, and long messages are shortened."""

    class Odd(Exception):  # noqa: N818 - its name is what is shown
        """An error."""

    for error, text in [
        (ValueError("too\n many"), "ValueError: too many"),
        (Odd(), "Odd"),
        (KeyError("a"), "KeyError: 'a'"),
        (ValueError("x" * 1000), "ValueError: " + "x" * 188),
    ]:
        assert python_call.describe(error) == text
