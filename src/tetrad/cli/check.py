"""`tetrad check`: validate the configuration, print it, or print its JSON Schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tetrad.cli.configuration import load
from tetrad.cli.exit_status import OK, print_error
from tetrad.config import certificates, yaml_writer
from tetrad.launch import privileges

if TYPE_CHECKING:
    import argparse

    from tetrad.config.result import ConfigResult


def check(options: argparse.Namespace) -> int:
    """Validate the configuration."""
    if options.schema:
        from tetrad.config import json_schema

        print(json_schema.text(), end="")
        return OK
    result = load(options).checked()
    found = certificates.read(result)
    if options.dump:
        print(yaml_writer.dump(result.config), end="")
    else:
        print(f"{result.file or 'built-in defaults'}: configuration OK")
    print_warnings(result, found)
    return OK


def print_warnings(result: ConfigResult, found: list[certificates.Found | None]) -> None:
    """Warn about certificates (`found`) that expire soon, and about a daemon that stays root."""
    for text in certificates.warnings(found):
        print_error(f"warning: {text}")
    if privileges.are_kept(result.config.daemon):
        print_error(
            "warning: daemon.user is not set, so the handlers run as root; set it, e.g. to nobody"
        )
