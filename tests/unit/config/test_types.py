"""The types of configuration values: parsing, the text that parses back, and error messages."""

from __future__ import annotations

import grp
import ipaddress
import pwd
import zoneinfo
from typing import Protocol

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tetrad.config.types import (
    Address,
    Argument,
    ClockFormat,
    CommandName,
    Duration,
    Function,
    Group,
    Mode,
    Network,
    Path,
    Rate,
    Size,
    SocketPath,
    Terminator,
    Timezone,
    TlsVersion,
    User,
    Variable,
    unmapped,
)

DURATION = "expected a duration such as 500ms, 10s, 1h30m or a number of seconds"
SPAN = "expected a duration of at least 1ms and at most 3650d"
RATE = "expected a rate such as 20/s, 300/m or 1000/h"
MODE = 'expected three octal digits in quotes, such as "027"'
NETWORK = "expected an address or a network such as 192.0.2.0/24 or 2001:db8::/32"
ADDRESS = "expected an IPv4 or IPv6 address, or unix:/path/to.sock"
FORMAT = "expected a format of strftime(3) such as %H:%M:%S"
NAME = "expected a name of exactly four printable ASCII characters other than space"
SOCKET_PATH = "the path of a Unix socket has at most 107 bytes"
SIZE = "expected a size such as 4KiB or a number of bytes, from 1 to 1TiB"
TERMINATOR = 'expected a string of at most 16 characters, such as "\\n"'
ZONE = "expected local, UTC or the name of a time zone such as Asia/Seoul"
TLS_VERSION = "expected 1.2 or 1.3"
VARIABLE = "expected the name of an environment variable, such as LC_ALL"
RESERVED = "names that begin with TETRAD_ are reserved"
FUNCTION = "expected a Python function, written as package.module:function"
MILLISECONDS_IN_TEN_YEARS = 3650 * 86400 * 1000


class ValueType(Protocol):
    """A type with a `parse`."""

    def parse(self, value: object, /) -> object:
        """Read a value."""


addresses = st.ip_addresses()


@st.composite
def networks(draw: st.DrawFn) -> str:
    """Generate networks in canonical form."""
    address = draw(addresses)
    prefix = draw(st.integers(0, address.max_prefixlen))
    assume(int(address) >> 32 != 0xFFFF)  # an IPv6 address that is an IPv4 one
    return str(ipaddress.ip_network(f"{address}/{prefix}", strict=False))


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1d2h3m4s5ms", 93784.005),
        ("1.5h", 5400),
        ("1h1h", 7200),
        (90, 90),
        (0.25, 0.25),
        (0.001, 0.001),
        ("1ms", 0.001),
        (1.00049, 1),
        ("3650d", 315_360_000),
    ],
)
def test_a_duration_is_read_in_its_units(written: object, seconds: float) -> None:
    """Strings with units and plain numbers are seconds, rounded to milliseconds."""
    assert Duration.parse(written) == seconds


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.001, "1ms"), (0.5, "500ms"), (90, "1m30s"), (86400, "1d"), (93784.005, "1d2h3m4s5ms")],
)
def test_a_duration_is_written_in_the_largest_units(seconds: float, written: str) -> None:
    """Each unit occurs at most once, the largest first, and not if it is zero."""
    assert str(Duration(seconds)) == written


@given(st.integers(1, MILLISECONDS_IN_TEN_YEARS))
def test_a_duration_is_read_back_from_what_is_written(milliseconds: int) -> None:
    """No millisecond is lost between a duration and its text."""
    duration = Duration.parse(milliseconds / 1000)
    assert Duration.parse(str(duration)) == duration
    assert round(duration * 1000) == milliseconds


@pytest.mark.parametrize(
    ("written", "count", "seconds", "text"),
    [
        ("20/s", 20, 1, "20/s"),
        ("300/m", 300, 60, "300/m"),
        ("1000/h", 1000, 3600, "1000/h"),
        ("007 / s", 7, 1, "7/s"),
    ],
)
def test_a_rate_is_a_count_and_its_seconds(
    written: str, count: int, seconds: int, text: str
) -> None:
    """A rate has a number, a number of seconds, and a normalized text."""
    rate = Rate.parse(written)
    assert (rate.number, rate.seconds, str(rate)) == (count, seconds, text)


@given(st.integers(1, 10**9), st.sampled_from("smh"))
def test_a_rate_is_read_back_from_what_is_written(count: int, unit: str) -> None:
    """A rate equals its text."""
    rate = Rate.parse(f"{count}/{unit}")
    again = Rate.parse(str(rate))
    assert again == rate == f"{count}/{unit}"
    assert (again.number, again.seconds) == (count, rate.seconds)


@given(st.integers(0, 0o777))
def test_a_mode_is_read_back_from_what_is_written(bits: int) -> None:
    """A mode is written as three octal digits, which parse to the same bits."""
    written = str(Mode(bits))
    assert len(written) == 3
    assert Mode.parse(written) == bits


@pytest.mark.parametrize(("written", "bits"), [("0", 0), ("27", 0o27), ("0777", 0o777)])
def test_a_mode_is_octal_however_many_digits(written: str, bits: int) -> None:
    """One to four digits are octal."""
    assert Mode.parse(written) == bits


@given(networks())
def test_a_network_is_read_back_from_what_is_written(network: str) -> None:
    """A network in canonical form is its own text."""
    assert Network.parse(network) == network


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("2001:DB8:0::1", "2001:db8::1/128"),
        ("2001:db8:0:0::/32", "2001:db8::/32"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("::ffff:0.0.0.0/96", "0.0.0.0/0"),
        ("::ffff:8000:0/97", "128.0.0.0/1"),
        ("::fffe:0:0/95", "::fffe:0:0/95"),
        ("::192.0.2.0/120", "::c000:200/120"),
    ],
)
def test_a_network_is_kept_in_canonical_form(written: str, canonical: str) -> None:
    """An address is a network of one address; an IPv4-mapped network is an IPv4 network."""
    assert Network.parse(written) == canonical


@given(addresses.filter(lambda one: one.version == 4 or not one.is_link_local))
def test_an_address_is_read_back_from_what_is_written(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """An address is its own text and has no path; an IPv4-mapped one is an IPv4 address."""
    assert Address.parse(str(address)) == str(unmapped(address))
    assert Address.parse(str(address)).path is None


def test_a_link_local_address_has_an_interface() -> None:
    """By its name or its number."""
    for text in ("fe80::1%eth0", "fe80::1%2"):
        assert Address.parse(text) == text


def test_an_ipv4_mapped_address_is_an_ipv4_address() -> None:
    """The kernel cannot bind an IPv6 socket to it, and its clients use IPv4 anyway."""
    assert Address.parse("::ffff:127.0.0.1") == "127.0.0.1"


def test_an_address_of_a_unix_socket_has_a_path() -> None:
    """Everything after the first `unix:` is the path."""
    address = Address.parse("unix:/run/unix:1.sock")
    assert address == "unix:/run/unix:1.sock"
    assert address.path == "/run/unix:1.sock"


def test_the_path_of_a_unix_socket_is_as_long_as_the_kernel_allows() -> None:
    """107 bytes are accepted, also in an address."""
    assert SocketPath.parse("é" * 53 + "e") == "é" * 53 + "e"
    assert Address.parse("unix:" + "s" * 107).path == "s" * 107


@given(st.text("abc/. ~é", min_size=1))
def test_a_path_is_any_text(text: str) -> None:
    """A path is not changed."""
    assert Path.parse(text) == text


def test_users_and_groups_are_those_of_the_machine() -> None:
    """Existing names are accepted, and ids, with or without an entry."""
    user, group = pwd.getpwall()[0].pw_name, grp.getgrall()[0].gr_name
    assert User.parse(user) == user
    assert Group.parse(group) == group
    assert User.parse(0) == User.parse("0") == "0"
    assert Group.parse(4294967294) == "4294967294"


@pytest.mark.parametrize("name", ["local", "UTC"])
def test_two_time_zones_need_no_database(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`local` and `UTC` are accepted on a machine without a time zone database."""
    monkeypatch.setattr(zoneinfo, "ZoneInfo", None)
    assert Timezone.parse(name) == name


def test_a_time_zone_is_one_of_the_database() -> None:
    """A zone of the machine's database is accepted."""
    zones = sorted(zoneinfo.available_timezones() - {"UTC"})
    if not zones:
        pytest.skip("this machine has no time zone database")
    assert Timezone.parse(zones[0]) == zones[0]


@pytest.mark.parametrize("text", ["%H:%M:%S", "now", "%Y年", " "])
def test_a_clock_format_has_a_result_that_is_not_empty(text: str) -> None:
    """Formats with and without conversions are accepted."""
    assert ClockFormat.parse(text) == text


@given(st.text([chr(code) for code in range(0x21, 0x7F)], min_size=4, max_size=4))
def test_a_command_name_is_four_visible_characters(name: str) -> None:
    """Any four printable ASCII characters other than space are a name."""
    assert CommandName.parse(name) == name


@given(st.integers(1, 1 << 40))
def test_a_size_is_read_back_from_what_is_written(count: int) -> None:
    """A size is written in the largest unit that fits, and parses back to the same number."""
    size = Size.parse(count)
    assert Size.parse(str(size)) == size == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4KiB", 4096),
        ("1 MiB", 1 << 20),
        ("2GiB", 1 << 31),
        ("1TiB", 1 << 40),
        ("7B", 7),
        ("7", 7),
    ],
)
def test_a_size_has_units_of_1024(text: str, count: int) -> None:
    """Units are powers of 1024, and a plain number is bytes."""
    assert Size.parse(text) == count


@pytest.mark.parametrize("value", ["0", -1, "2TiB", "1.5KiB", "1kb", True, None, 1.5, 1e9, ""])
def test_an_invalid_size_is_refused(value: object) -> None:
    """Zero, too large sizes, fractions of bytes and unknown units are errors."""
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the text is compared whole
        Size.parse(value)
    assert str(refusal.value) == SIZE


@pytest.mark.parametrize("text", ["", "\n", "\r\n", "\0", "--\n", "x" * 16])
def test_a_terminator_is_a_short_string(text: str) -> None:
    """The empty string is accepted."""
    assert Terminator.parse(text) == text


@pytest.mark.parametrize("value", [r"\n", "x" * 17, 0, None])
def test_an_invalid_terminator_is_refused(value: object) -> None:
    r"""A backslash is refused: it is a `\n` that was not in double quotes."""
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the text is compared whole
        Terminator.parse(value)
    assert str(refusal.value) == TERMINATOR


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (Duration, "soon", DURATION),
        (Duration, "10", DURATION),
        (Duration, "10 s", DURATION),
        (Duration, "10S", DURATION),
        (Duration, "-1s", DURATION),
        (Duration, "1h,5m", DURATION),
        (Duration, "10s\n", DURATION),
        (Duration, "", DURATION),
        (Duration, True, DURATION),
        (Duration, None, DURATION),
        (Duration, 0, SPAN),
        (Duration, "0s", SPAN),
        (Duration, -1, SPAN),
        (Duration, 0.0009, SPAN),
        (Duration, "3650d1ms", SPAN),
        (Duration, float("inf"), SPAN),
        (Duration, float("nan"), SPAN),
        (Rate, "0/s", RATE),
        (Rate, "20", RATE),
        (Rate, "20/d", RATE),
        (Rate, "-1/s", RATE),
        (Rate, "1.5/s", RATE),
        (Rate, "20/s\n", RATE),
        (Rate, "1" + "0" * 18 + "/s", RATE),
        (Rate, "9" * 5000 + "/s", RATE),
        (Rate, 20, RATE),
        (Mode, 27, MODE),
        (Mode, "", MODE),
        (Mode, "028", MODE),
        (Mode, "0o27", MODE),
        (Mode, "1000", MODE),
        (Mode, "00027", MODE),
        (Mode, "027\n", MODE),
        (Network, "example.org", NETWORK),
        (Network, "50%", NETWORK),
        (Network, "fe80::%eth0/64", "a network has no zone; remove % and the text after it"),
        (Network, "fe80::1%1", "a network has no zone; remove % and the text after it"),
        (Network, "10.0.0.0/33", NETWORK),
        (Network, "10.0.0", NETWORK),
        (Network, "", NETWORK),
        (Network, 10, NETWORK),
        (
            Network,
            "10.1.2.3/8",
            "10.1.2.3/8 has host bits set; write 10.0.0.0/8",
        ),
        (
            Network,
            "2001:db8::1/64",
            "2001:db8::1/64 has host bits set; write 2001:db8::/64",
        ),
        (Address, "localhost", ADDRESS),
        (Address, "127.0.0.1:65000", ADDRESS),
        (Address, "[::1]", ADDRESS),
        (Address, "", ADDRESS),
        (Address, 1, ADDRESS),
        (Address, "fe80::1", "a link-local address needs its interface: write fe80::1%eth0"),
        (
            Address,
            "::1%1",
            "only a link-local address (fe80::) has an interface; remove the % part",
        ),
        (Address, "unix:", "expected a path"),
        (Address, "unix:" + "s" * 108, f"{SOCKET_PATH}, but {'s' * 108} has 108"),
        (SocketPath, "é" * 54, f"{SOCKET_PATH}, but {'é' * 54} has 108"),
        (SocketPath, "", "expected a path"),
        (Path, "", "expected a path"),
        (Path, "a\0b", "expected a path"),
        (Path, 5, "expected a path"),
        (Path, "l\udce9", r"the path is not in UTF-8: l\xe9"),
        (User, "no body", "this machine has no user 'no body'"),
        (User, "no\0body", "this machine has no user 'no\\x00body'"),
        (User, True, "expected the name or the id of a user"),
        (User, 4294967295, "this machine has no user '4294967295'"),
        (User, "065534", "this machine has no user '065534'"),
        (Group, "no body", "this machine has no group 'no body'"),
        (Group, None, "expected the name or the id of a group"),
        (Timezone, "Mars/Base", "'Mars/Base' is not in this machine's time zone database"),
        (Timezone, "../passwd", "'../passwd' is not in this machine's time zone database"),
        (Timezone, "utc ", "'utc ' is not in this machine's time zone database"),
        (Timezone, 9, ZONE),
        (ClockFormat, "", FORMAT),
        (ClockFormat, 9, FORMAT),
        (ClockFormat, "a\0b", FORMAT),
        (ClockFormat, "%9999Y", FORMAT),  # more than strftime(3) is given room for
        (CommandName, "tim", NAME),
        (CommandName, "times", NAME),
        (CommandName, "ti e", NAME),
        (CommandName, "tim\x7f", NAME),
        (CommandName, "timé", NAME),
        (CommandName, "time\n", NAME),
        (CommandName, 1234, NAME),
        (TlsVersion, 1.1, TLS_VERSION),
        (TlsVersion, "1.20", TLS_VERSION),
        (TlsVersion, None, TLS_VERSION),
        (Argument, "a\0b", "expected a string"),
        (Argument, 5, "expected a string"),
        (Variable, "", VARIABLE),
        (Variable, "1A", VARIABLE),
        (Variable, "A-B", VARIABLE),
        (Variable, "A\n", VARIABLE),
        (Variable, 5, VARIABLE),
        (Variable, "TETRAD_", RESERVED),
        (Variable, "TETRAD_CLIENT", RESERVED),
        *((Function, name, FUNCTION) for name in ("a", ":b", "a:", "1a:b", "a:1b", "a.:b", 5)),
        *((Function, name, FUNCTION) for name in ("a:b.", "a b:c", "a:b:c", "a:b.1c", "a.1b:c")),
    ],
)
def test_an_invalid_value_is_refused_with_the_expected_form(
    kind: ValueType, value: object, message: str
) -> None:
    """The ValueError names the expected form, or the correction."""
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the text is compared whole
        kind.parse(value)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("value", "version"), [(1.2, "1.2"), ("1.2", "1.2"), (1.3, "1.3"), ("1.3", "1.3")]
)
def test_a_version_of_tls_may_be_a_number(value: object, version: str) -> None:
    """In quotes or not, it is the same text."""
    parsed = TlsVersion.parse(value)
    assert (parsed, type(parsed)) == (version, TlsVersion)


@pytest.mark.parametrize("name", ["a:b", "_a1.b_2:C.d", "é.ü:ö"])
def test_a_function_is_the_name_of_a_module_and_an_attribute(name: str) -> None:
    """Nothing is imported."""
    parsed = Function.parse(name)
    assert (parsed, type(parsed)) == (name, Function)
