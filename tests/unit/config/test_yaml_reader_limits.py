"""Files that are not text, that are nested too deeply, or that cannot be read."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.configuration_files import problems
from tetrad.config import yaml_reader
from tetrad.config.yaml_reader import load

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_may_be_wide(file: Path) -> None:
    """Hundreds of lists next to each other are not deep nesting."""
    assert problems(file, f"x: [{'[{}], ' * 500}]") == ["1:1: x: unknown key"]


@pytest.mark.parametrize("text", ["listen: &a [*a]", "commands: &a {abcd: *a}"])
def test_a_file_that_contains_itself_is_refused(file: Path, text: str) -> None:
    """A recursive alias is an error, not an endless loop."""
    assert len(problems(file, text)) == 1


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"log: \xff", "1:6"),
        (b"\n\xff", "2:1"),
        (b"log: {level: caf\xe9}", "1:17"),
        (b"limits: {}\n# x\nlog: {file: /tmp/\xff}\n", "3:18"),
        (b"log:\n  file: a\x01b\n", "2:10"),
    ],
)
@pytest.mark.parametrize("loader", [yaml_reader._LOADER, yaml.BaseLoader])  # noqa: SLF001 - in C
def test_a_file_that_is_not_text_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, loader: object, data: bytes, place: str
) -> None:
    """Invalid UTF-8 and control characters are errors with a location."""
    monkeypatch.setattr(yaml_reader, "_LOADER", loader)
    file.write_bytes(data)
    [problem] = load(str(file)).problems
    assert problem.startswith(f"{file}:{place}: not a UTF-8 text file: ")


def test_an_endless_file_is_refused() -> None:
    """A device that is named by mistake is not read until memory is exhausted."""
    with pytest.raises(OSError, match="larger than 16 MiB") as refusal:
        load("/dev/zero")
    error = refusal.value
    assert (error.errno, error.strerror) == (
        errno.EFBIG,
        "larger than 16 MiB: not a configuration file",
    )


def test_the_largest_file_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The maximum is included."""
    file.write_text("log: {}\n", "utf-8")
    monkeypatch.setattr(yaml_reader, "_MAX_BYTES", 8)
    assert load(str(file)).problems == []
    monkeypatch.setattr(yaml_reader, "_MAX_BYTES", 7)
    with pytest.raises(OSError, match="larger than"):
        load(str(file))


def test_an_error_without_a_place_is_at_the_start_of_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library may not know one."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise yaml.MarkedYAMLError(problem="no memory")

    monkeypatch.setattr(yaml, "compose", fail)
    assert problems(file, "log: {}") == ["1:1: invalid YAML: no memory"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_may_have_a_byte_order_mark(file: Path, encoding: str) -> None:
    """All encodings that YAML defines are read."""
    file.write_bytes("log: {level: debug} # é".encode(encoding))
    assert load(str(file)).checked().config.log.level == "debug"


@pytest.mark.parametrize("loader", [yaml_reader._LOADER, yaml.BaseLoader])  # noqa: SLF001 - in C
@pytest.mark.parametrize(
    ("text", "column"), [("[" * 900, 65), ("{a: " * 9999, 257), ("- " * 9999 + "x", 129)]
)
def test_a_file_that_is_nested_deeply_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, loader: object, text: str, column: int
) -> None:
    """More than 64 levels are one error, with and without libyaml."""
    monkeypatch.setattr(yaml_reader, "_LOADER", loader)
    assert problems(file, text) == [f"1:{column}: invalid YAML: nested more than 64 levels deep"]


@pytest.mark.parametrize("loader", [yaml_reader._LOADER, yaml.BaseLoader])  # noqa: SLF001 - in C
def test_a_file_that_is_nested_without_end_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, loader: object
) -> None:
    """The C library has a limit of its own, which it may reach first."""
    monkeypatch.setattr(yaml_reader, "_LOADER", loader)
    [problem] = problems(file, "[" * 100_000)
    assert re.fullmatch(r"1:\d+: invalid YAML: .*nest.*", problem)


def test_a_file_may_be_nested_as_deeply_as_the_limit(file: Path) -> None:
    """64 levels are read; the error is then that of their contents."""
    text = "[" * 64 + "]" * 64
    assert problems(file, text) == ["1:1: expected a mapping, got a list"]


def test_a_file_that_cannot_be_read_raises_oserror(tmp_path: Path) -> None:
    """The caller reports a missing file and a folder."""
    with pytest.raises(FileNotFoundError):
        load(str(tmp_path / "none.yaml"))
    with pytest.raises(IsADirectoryError):
        load(str(tmp_path))
