"""Chains with certificates of CAs that are out of date."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import pytest

from tests.support.certificates import DAY, Authority, Pair, concatenated, needs_openssl
from tests.support.configuration_files import read
from tetrad.config import certificates
from tetrad.config.diagnostics import ConfigError

pytestmark = needs_openssl

EXPIRED = (-9 * DAY, -DAY)
CHAIN = "server certificate rejected: "


class Site(NamedTuple):
    """A server whose CA has a new root; the old root has certified that, too (cross-certificates).

    `files` are certificates by name. `leaf` is of the intermediate CA, `direct` of the root itself.
    """

    leaf: Pair
    direct: Pair
    files: dict[str, str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Return the certificates of a server, of its CAs, and of another one."""
    folder = tmp_path_factory.mktemp("site")
    old, new = Authority(str(folder / "old"), "old"), Authority(str(folder / "new"), "new")
    middle = Authority(str(folder / "middle"), "middle", new)
    other = Authority(str(folder / "other"), "other")

    def certify(by: Authority, one: Authority, name: str, since: float, until: float) -> str:
        subject = f"/O=tetrad/CN={pathlib.Path(one.folder).name}"
        dates = {"since": since, "until": until}
        return by.issue(name, subject, kind="authority", key=one.key, **dates).certificate

    files = {
        **{pathlib.Path(one.folder).name: one.certificate for one in (old, new, middle, other)},
        "cross": certify(old, new, "cross", -9 * DAY, 99 * DAY),
        "cross, soon expired": certify(old, new, "soon", -9 * DAY, 9 * DAY),
        "expired cross": certify(old, new, "expired", *EXPIRED),
        "early cross": certify(old, new, "early", DAY, 99 * DAY),
        "expired middle": certify(new, middle, "expired", *EXPIRED),
        "expired old": certify(old, old, "expired-root", *EXPIRED),
    }
    return Site(middle.issue("leaf"), new.issue("direct"), files)


def read_chain(folder: pathlib.Path, pair: Pair, *authorities: str) -> tuple[str, list[str]]:
    """Return the error and the warnings of a listener that sends a chain, without the file."""
    path = concatenated(str(folder / "chain.pem"), pair.certificate, *authorities)
    tls = f"certificate: {path}, key: {pair.key}"
    loaded = read(folder / "tetrad.yaml", f"listen: [{{port: 1, tls: {{{tls}}}}}]")
    try:
        found = certificates.read(loaded.checked())
    except ConfigError as error:
        (text,) = error.problems
        return text.partition(f"tls.certificate: {path}: ")[2], []
    return "", [text.removeprefix(f"{path}: ") for text in certificates.expiry_warnings(found)]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (("middle", "cross"), ""),
        (("middle", "new"), ""),
        (("middle", "cross, soon expired"), "(CN=new,O=tetrad) expires on 20"),
        (("middle", "expired cross"), "(CN=new,O=tetrad) expired on 20"),
        (("middle", "early cross"), "(CN=new,O=tetrad) is not valid before 20"),
        (("middle", "expired cross", "old"), "(CN=new,O=tetrad) expired on 20"),
        (("middle", "new", "expired cross"), "(CN=new,O=tetrad) expired on 20"),
        (("middle", "new", "expired old"), "(CN=old,O=tetrad) expired on 20"),
        (("middle", "cross", "expired old"), "(CN=old,O=tetrad) expired on 20"),
        (("expired middle",), "(CN=middle,O=tetrad) expired on 20"),
    ],
)
def test_a_cross_certificate_may_be_out_of_date(
    site: Site, tmp_path: pathlib.Path, names: tuple[str, ...], problem: str
) -> None:
    """Clients that know the CA by another certificate need it no more; a warning names it."""
    files = [site.files[name] for name in names]
    error, warnings = read_chain(tmp_path, site.leaf, *files)
    assert error == ""
    assert [problem in text for text in warnings] == [True] * bool(problem)
    assert all(text.endswith("; renew or remove it") for text in warnings)


def test_the_warning_has_the_line_of_the_certificate(site: Site, tmp_path: pathlib.Path) -> None:
    """For a server certificate that the root itself has signed, too."""
    error, (warning,) = read_chain(tmp_path, site.direct, site.files["expired cross"])
    line = pathlib.Path(site.direct.certificate).read_text("ascii").count("\n") + 1
    assert error == ""
    name = f"the CA certificate in line {line} (CN=new,O=tetrad)"
    assert warning.startswith(f"{name} expired on 20")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("expired middle", "new"), "(CN=middle,O=tetrad) expired on 20"),
        (("expired middle", "expired cross", "old"), "(CN=middle,O=tetrad) expired on 20"),
        (("new",), f"{CHAIN}unable to get local issuer certificate"),
        (("expired cross",), f"{CHAIN}unable to get local issuer certificate"),
        (("middle", "other"), f"{CHAIN}unable to get"),
        (("middle", "other", "expired old"), f"{CHAIN}unable to get"),
    ],
)
def test_a_chain_that_no_client_follows_is_refused(
    site: Site, tmp_path: pathlib.Path, names: tuple[str, ...], message: str
) -> None:
    """An intermediate CA has expired, or its certificate is missing."""
    error, _ = read_chain(tmp_path, site.leaf, *(site.files[name] for name in names))
    assert message in error


def test_an_expired_client_ca_is_reported(site: Site, tmp_path: pathlib.Path) -> None:
    """Clients of the others in the file are served."""
    path = concatenated(str(tmp_path / "ca.pem"), site.files["other"], site.files["expired old"])
    tls = f"certificate: {site.leaf.certificate}, key: {site.leaf.key}, client_ca: {path}"
    loaded = read(tmp_path / "tetrad.yaml", f"listen: [{{port: 1, tls: {{{tls}}}}}]")
    (warning,) = certificates.expiry_warnings(certificates.read(loaded.checked()))
    assert warning.startswith(f"{path}: the CA certificate in line ")
    assert "(CN=old,O=tetrad) expired on 20" in warning
