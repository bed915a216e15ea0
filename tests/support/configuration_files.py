"""Writes a configuration file and reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tetrad.config.yaml_reader import load

if TYPE_CHECKING:
    from pathlib import Path

    from tetrad.config.model import Config
    from tetrad.config.result import ConfigResult


def read(file: Path, text: str) -> ConfigResult:
    """Write a file and load it."""
    file.write_text(text, "utf-8")
    return load(str(file))


def config(file: Path, text: str) -> Config:
    """Write a file without errors and load it."""
    return read(file, text).checked().config


def problems(file: Path, text: str) -> list[str]:
    """Write a file and return its errors, without the file's name at their beginning."""
    return [problem.removeprefix(f"{file}:") for problem in read(file, text).problems]


def command_problems(file: Path, command: str) -> list[str]:
    """Write a file with a command and return its errors, without the file's name."""
    return problems(file, f"commands:\n  load: {command}\n")
