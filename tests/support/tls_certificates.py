"""The certificates of the tests with TLS, and the listeners and clients that use them."""

from __future__ import annotations

import functools
import os
import pathlib
import ssl
from typing import Any

from tests.support.certificates import DAY, Authority, Pair, concatenated


class Certificates:
    """A CA, a server's certificate, certificates of clients, and another CA."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.ca = Authority(os.path.join(folder, "ours"))
        self.other_ca = Authority(os.path.join(folder, "theirs"))
        self.server = self.ca.issue("server")
        self.monitor = self.ca.issue("monitor", "/O=tetrad/CN=monitor", kind="client")
        self.other = self.ca.issue("other", "/O=tetrad/CN=other", kind="client")
        self.forged = self.other_ca.issue("forged", "/O=tetrad/CN=monitor", kind="client")
        self.expired = self.ca.issue(
            "expired client", "/O=tetrad/CN=monitor", kind="client", since=-2 * DAY, until=-DAY
        )

    def tls(self, pair: Pair | None = None, **more: object) -> dict[str, Any]:
        """Return a listener with TLS and these settings."""
        certificate, key = pair or self.server
        return {"port": 0, "tls": {"certificate": certificate, "key": key, **more}}

    def mutual(self, **more: object) -> dict[str, Any]:
        """Return a listener that requires certificates of its clients."""
        return self.tls(None, client_ca=self.ca.certificate, **more)

    def context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """Return the context of a client, which verifies the server's name."""
        context = ssl.create_default_context(cafile=self.ca.certificate)
        if pair is not None:
            context.load_cert_chain(*pair)
        return context

    @functools.cached_property
    def chain(self) -> str:
        """A key, and its certificate by an intermediate CA, which follows it."""
        middle = Authority(os.path.join(self.folder, "middle"), "in the middle", self.ca)
        leaf = middle.issue("leaf")
        parts = (leaf.key, leaf.certificate, middle.certificate)
        return concatenated(os.path.join(self.folder, "chain.pem"), *parts)

    @functools.cached_property
    def bundle(self) -> str:
        """The certificates of both CAs, with text between them that is not ASCII."""
        path = os.path.join(self.folder, "bundle.pem")
        with open(path, "wb") as file:
            for one in (self.other_ca, self.ca):
                text = pathlib.Path(one.certificate).read_bytes()
                file.write("# Főtanúsítvány\n".encode() + b"\xff\n" + text)
        return path
