"""Calls of Python functions: their context, their answer, and their exceptions."""

from __future__ import annotations

from typing import Any

import pytest

from tetrad import extension
from tetrad.extension import Context
from tetrad.handler import python_call


def test_a_context_is_immutable() -> None:
    """Its repr is the call that makes it."""
    context = Context("192.0.2.7:38276", "1f-1", "func")
    assert repr(context) == "Context('192.0.2.7:38276', '1f-1', 'func')"
    for name in ("client", "colour"):
        with pytest.raises(AttributeError):
            setattr(context, name, "")
        with pytest.raises(AttributeError):
            delattr(context, name)
    assert context.client == "192.0.2.7:38276"


def test_the_example_in_the_docstring_works() -> None:
    """The function that `tetrad.extension` shows can be called."""
    namespace: dict[str, Any] = {}
    lines = (extension.__doc__ or "").partition("    from tetrad")[2].partition("\n\nEach call")[0]
    source = "    from tetrad" + lines
    exec("\n".join(line[4:] for line in source.splitlines()), namespace)  # noqa: S102 - a docstring of the package
    assert (
        namespace["who"](Context("192.0.2.7:38276", "1f-1", "who?")) == "you are 192.0.2.7:38276\n"
    )


def test_an_answer_is_bytes_or_a_string(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any bytes-like object; everything else is a TypeError that names the type."""
    context = Context("", "", "")
    for given, answer in [("é", "é".encode()), (b"x", b"x"), (bytearray(b"x"), b"x")]:
        monkeypatch.setattr(python_call, "find", lambda _name, given=given: lambda _context: given)
        assert python_call.call("m:f", context) == answer
    monkeypatch.setattr(python_call, "find", lambda _name: lambda _context: 7)
    with pytest.raises(TypeError, match="m:f returned int, not bytes or str"):
        python_call.call("m:f", context)


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
