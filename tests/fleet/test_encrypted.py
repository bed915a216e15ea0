"""TLS listeners behind the balancer: the TLS session is between the client and the tetrad."""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

from tests.support.balancer import CONFIGURATION
from tests.support.certificates import Authority, needs_openssl
from tests.support.clients import ANSWER
from tests.support.fleet_site import Site, connect

if TYPE_CHECKING:
    import pathlib

    from tests.support.fixtures import MakeDaemon
    from tests.support.fleet_site import Switch

CA = "/etc/haproxy/tetrad-ca.pem"


@needs_openssl
def test_health_checks_work_with_tls_listeners(
    switch: Switch, prepared: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """With `check-ssl` enabled every check passes, and clients use TLS with the tetrad."""
    authority = Authority(str(tmp_path / "authority"))
    certificate, key = authority.issue("server")
    text = CONFIGURATION.read_text("utf-8").replace(
        "#default-server check-ssl", "default-server check-ssl"
    )
    configuration = tmp_path / "tetrad.cfg"
    configuration.write_text(text.replace(CA, authority.certificate), "utf-8")
    tls = {"certificate": certificate, "key": key}
    made = Site(switch, prepared, str(tmp_path), configuration, tls=tls)
    with contextlib.closing(made) as site:
        site.balancer.wait_until_open()
        with contextlib.closing(connect(site.clients)) as client:
            context = ssl.create_default_context(cafile=authority.certificate)
            client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
            assert ANSWER.fullmatch(client.ask())
        site.check_logs()
