"""The configuration and the daemon that a command is about."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tetrad import configfile, pidfile
from tetrad.cli.outcome import BAD_CONFIGURATION, FAILURE, PERMISSION, CommandError
from tetrad.terminal import harmless

if TYPE_CHECKING:
    import argparse

    from tetrad.configfile import Loaded


def load(options: argparse.Namespace) -> Loaded:
    """Read the file; its problems are for the caller to look at."""
    file = configfile.find(options.config)
    try:
        return configfile.load(file)
    except PermissionError:
        raise CommandError(f"{file}: permission denied", PERMISSION) from None
    except OSError as error:
        raise CommandError(
            f"{file}: {(error.strerror or str(error)).lower()}", BAD_CONFIGURATION
        ) from None


def explicit(options: argparse.Namespace) -> str | None:
    """Return the path that -c names."""
    return os.path.abspath(options.config) if options.config else None


def check_certificates(loaded: Loaded) -> list[str]:
    """Try the certificates, and return what is to be said of good ones. Raises ConfigError."""
    if not any(listener.tls for listener in loaded.config.listen):
        return []
    from tetrad import certificates

    return list(certificates.warnings(certificates.read(loaded)))


def warn(loaded: Loaded) -> None:
    """Say what is allowed, and hardly what anybody wants."""
    from tetrad import privileges

    for text in check_certificates(loaded):
        print(harmless(f"tetrad: warning: {text}"), file=sys.stderr)
    if privileges.are_kept(loaded.config.daemon):
        print(
            "tetrad: warning: daemon.user is not set, so clients are served as root:"
            " name a user, e.g. nobody",
            file=sys.stderr,
        )


def running_pid(loaded: Loaded) -> int | None:
    """Return the pid of the daemon with this pidfile, if it runs."""
    path = loaded.config.daemon.pidfile
    try:
        return pidfile.look(path).pid
    except PermissionError:
        raise CommandError(f"{path}: permission denied", PERMISSION) from None
    except OSError as error:
        raise CommandError(f"{path}: {(error.strerror or '').lower()}", FAILURE) from None
