"""client: the one of the two originals."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tetrad.cli.exit_status import FAILURE, OK, CommandError
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    import argparse
    import ssl


def client(options: argparse.Namespace) -> int:
    """Talk to a tetrad."""
    from tetrad.cli import client as talk

    host, port, service = options.host, options.port, options.service
    encrypted = options.tls or options.ca or options.cert or options.insecure
    try:
        context = _context(options) if encrypted else None
        with talk.Connection(host, port, options.timeout, context) as connection:
            if options.words:
                for answer in talk.say(connection, service, options.words):
                    print(answer, flush=True)
            else:
                talk.converse(connection, service)
    except talk.ConversationError as error:
        raise CommandError(f"{error}: {_reason(error.reason)}", FAILURE) from None
    return OK


def _context(options: argparse.Namespace) -> ssl.SSLContext:
    """Return what to encrypt with. Raises OSError."""
    import ssl

    for path in filter(None, (options.ca, options.cert, options.key)):
        os.close(os.open(path, os.O_RDONLY))  # for an error that names it
    context = ssl.create_default_context()
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if options.ca:
            context.load_verify_locations(options.ca)
        if options.cert:
            context.load_cert_chain(options.cert, options.key)
    except ssl.SSLError as error:
        files = ", ".join(filter(None, (options.ca, options.cert, options.key)))
        raise CommandError(f"{files}: {_reason(error)}", FAILURE) from None
    return context


def _reason(error: OSError) -> str:
    """Say what is wrong, in words."""
    import ssl

    from tetrad.tls.errors import words

    if isinstance(error, ssl.SSLError):
        return words(error)
    return reason_of(error)
