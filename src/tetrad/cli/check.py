"""`tetrad check`: validate the configuration, print it, or print its JSON Schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tetrad.cli.configuration import load
from tetrad.cli.exit_status import OK, print_error
from tetrad.config import yaml_writer
from tetrad.launch import privileges

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from tetrad.config.certificates import ListenerTls
    from tetrad.config.result import ConfigResult


def check(options: argparse.Namespace) -> int:
    """Validate the configuration."""
    if options.schema:
        from tetrad.config import json_schema

        print(json_schema.text(), end="")
        return OK
    result = load(options).checked()
    found = read_certificates(result)
    if options.dump:
        print(yaml_writer.dump(result.config), end="")
    else:
        print(f"{result.file or 'built-in defaults'}: configuration OK")
    print_warnings(result, found)
    return OK


def read_certificates(result: ConfigResult) -> list[ListenerTls | None]:
    """Read and verify the certificates of all listeners; an empty list if none has TLS.

    Raises ConfigError.
    """
    if not any(listener.tls for listener in result.config.listen):
        return []
    from tetrad.config import certificates  # imports ssl

    return certificates.read(result)


def print_warnings(result: ConfigResult, found: Sequence[ListenerTls | None]) -> None:
    """Warn about certificates (`found`) that expire soon, and about a daemon that stays root."""
    if found:
        from tetrad.config.certificates import expiry_warnings

        for text in expiry_warnings(found):
            print_error(f"warning: {text}")
    if privileges.serves_as_root(result.config.daemon):
        print_error(
            "warning: daemon.user is not set, so the handlers run as root; set it, e.g. to nobody"
        )
