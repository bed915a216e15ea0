"""client: the one of the two originals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tetrad.cli.outcome import FAILURE, OK, CommandError

if TYPE_CHECKING:
    import argparse


def client(options: argparse.Namespace) -> int:
    """Talk to a tetrad."""
    from tetrad import client as talk

    host, port, service = options.host, options.port, options.service
    try:
        with talk.Connection(host, port) as connection:
            if options.words:
                for answer in talk.say(connection, service, options.words):
                    print(answer, flush=True)
            else:
                talk.converse(connection, service)
    except OSError as error:
        raise CommandError(
            f"{host}:{port}: {(error.strerror or str(error)).lower()}", FAILURE
        ) from None
    return OK
