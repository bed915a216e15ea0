"""Which files there are, below `etc/`, and what is in them."""

from __future__ import annotations

from tetrad.config import json_schema
from tetrad.paper import completions, manual


def files() -> dict[str, str]:
    """Return the text of every generated file by its path."""
    return {
        "man/tetrad.8": manual.command_page(),
        "man/tetrad.yaml.5": manual.file_page(),
        "completions/tetrad.bash": completions.script("bash"),
        "completions/_tetrad": completions.script("zsh"),
        "completions/tetrad.fish": completions.script("fish"),
        "tetrad.schema.json": json_schema.text(),
    }
