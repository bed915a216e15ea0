"""install, uninstall: the service's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tetrad.cli.exit_status import FAILURE, OK, PERMISSION, CommandError
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable


def install(options: argparse.Namespace) -> int:
    """Put the service's files in place."""
    from tetrad.cli import install as service

    place = service.Place(options.root, options.dry_run)
    _tell(service.install(place, by_socket_only=options.socket))
    if place.is_live:
        print("tetrad: systemctl enable --now tetrad starts it, now and whenever the machine does")
    return OK


def uninstall(options: argparse.Namespace) -> int:
    """Take the service's files away."""
    from tetrad.cli import install as service

    _tell(service.uninstall(service.Place(options.root, options.dry_run)))
    return OK


def _tell(done: Iterable[str]) -> None:
    """Print what is done as it is done, so that what goes wrong stands behind it."""
    from tetrad.cli.install import InstallError

    try:
        for line in done:
            print(f"tetrad: {line}", flush=True)
    except InstallError as error:
        raise CommandError(str(error), FAILURE) from None
    except OSError as error:
        if error.filename is None:
            raise
        status = PERMISSION if isinstance(error, PermissionError) else FAILURE
        message = f"{error.filename}: {reason_of(error)}"
        raise CommandError(message, status) from None
