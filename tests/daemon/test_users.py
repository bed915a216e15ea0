"""Users and groups by id, without an entry on the machine, and from a directory service."""

from __future__ import annotations

import glob
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import run_here
from tests.support.processes import run, status_of, title_of
from tests.support.system_programs import require

if TYPE_CHECKING:
    import pathlib

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

UID, GID, READERS = 3_999_000_001, 3_999_000_002, 3_999_000_003
"""Ids that no user and no group of a machine has."""

NO_GROUP = "this id has no entry on this machine: daemon.group is required"

DIRECTORY = r"""
#include <errno.h>
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <string.h>

static char user[] = "gr\303\274n", group[] = "gr\303\266\303\237en", *none[] = {NULL};

static enum nss_status fill_user(struct passwd *one) {
    *one = (struct passwd){user, "x", UID, GID, "", "/", "/bin/sh"};
    return NSS_STATUS_SUCCESS;
}

static enum nss_status fill_group(struct group *one) {
    *one = (struct group){group, "x", GID, none};
    return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_hesiod_getpwnam_r(const char *n, struct passwd *p, char *b, size_t s, int *e) {
    return strcmp(n, user) ? NSS_STATUS_NOTFOUND : fill_user(p);
}

enum nss_status _nss_hesiod_getpwuid_r(uid_t u, struct passwd *p, char *b, size_t s, int *e) {
    return u == UID ? fill_user(p) : NSS_STATUS_NOTFOUND;
}

enum nss_status _nss_hesiod_getgrnam_r(const char *n, struct group *g, char *b, size_t s, int *e) {
    return strcmp(n, group) ? NSS_STATUS_NOTFOUND : fill_group(g);
}

enum nss_status _nss_hesiod_getgrgid_r(gid_t i, struct group *g, char *b, size_t s, int *e) {
    return i == GID ? fill_group(g) : NSS_STATUS_NOTFOUND;
}
"""
"""A directory service (nsswitch.conf(5)) with one user and one group."""

MOUNTS = """
mount --bind "$1" "$2" && mount --bind "$3" /etc/nsswitch.conf && shift 3 && exec "$@"
"""


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> list[str]:
    """Return the beginning of a command line whose program knows the users of the directory."""
    require("cc", "unshare")
    modules = glob.glob("/lib/*/libnss_hesiod.so.2")
    if os.geteuid() or not modules:
        pytest.skip("needs root, and libnss_hesiod.so.2, in whose place the directory is mounted")
    source, module, switch = tmp_path / "nss.c", tmp_path / "nss.so", tmp_path / "nsswitch.conf"
    source.write_text(DIRECTORY, "ascii")
    ids = (f"-DUID={UID}u", f"-DGID={GID}u")
    command = ["cc", "-w", "-shared", "-fPIC", *ids, "-o", str(module), str(source)]
    subprocess.run(command, check=True)
    switch.write_text("passwd: files hesiod\ngroup: files hesiod\n", "ascii")
    mounts = (str(module), modules[0], str(switch))
    return ["unshare", "--mount", "sh", "-c", MOUNTS, "sh", *mounts]


def test_an_id_without_an_entry_needs_a_group(prepared: MakeDaemon) -> None:
    """Otherwise the daemon would keep the group of root."""
    asked = prepared(daemon={"user": UID})
    ran = run_here(asked, "check")
    assert ran.status == 78
    assert ran.err.endswith(f": daemon.user: {NO_GROUP}\n")


def test_a_daemon_runs_as_ids_without_an_entry(prepared: MakeDaemon, nobodys_folder: str) -> None:
    """It has no other group, and its files are theirs. A reload and an upgrade work."""
    os.chown(nobodys_folder, UID, GID)
    served = prepared(
        folder=nobodys_folder,
        daemon={"user": UID, "group": str(GID), "control_group": READERS},
        commands={"whom": {"run": ["id"]}},
    ).start()
    fields = status_of(served.pid)
    assert fields["Uid"].split() == [str(UID)] * 4
    assert fields["Gid"].split() == [str(GID)] * 4
    assert fields["Groups"].split() == [str(GID)]
    client = served.connect()
    client.send(b"whomquit")
    assert client.read_all().startswith(f"uid={UID} gid={GID}".encode())
    assert served.tetrad("reload").out == "tetrad: reloaded; nothing changed\n"
    assert served.tetrad("upgrade").status == 0
    ask = [*served.command, "status", "-c", served.file]
    for group, status in ((READERS, 0), (READERS + 1, 4)):
        ids = (f"--reuid={UID + 1}", f"--regid={UID + 1}", f"--groups={group}")
        assert run(["setpriv", *ids, *ask], served.environment).status == status


def test_check_takes_ids(prepared: MakeDaemon, nobodys_folder: str) -> None:
    """Of this user, of another one, and of one without a group."""
    asked = prepared(folder=nobodys_folder)
    assert asked.tetrad("check", "--user", str(os.geteuid())).status == 0
    assert asked.tetrad("check", "--user", "65534").status == 0
    ran = asked.tetrad("check", "--user", str(UID))
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.endswith("this id has no entry on this machine, and so no group\n")


def test_users_of_a_directory_have_any_name(
    prepared: MakeDaemon, nobodys_folder: str, directory: list[str]
) -> None:
    """In the locale C, too: in messages, titles, the status and the log."""
    folder = os.path.join(nobodys_folder, "größe €")
    os.mkdir(folder)
    os.chown(folder, UID, GID)
    served = prepared(
        folder=folder,
        listen=[{"address": "unix:sö.sock"}],
        daemon={"user": "grün", "control_group": "größen"},
    )
    served.environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    outside, served.command = served.command, [*directory, *served.command]
    served.start()
    assert status_of(served.pid)["Uid"].split() == [str(UID)] * 4
    assert title_of(served.pid) == f"tetrad: master {served.file}"
    assert f"config     {served.file}\n" in served.tetrad("status").out
    line = served.wait_for("server.listening")
    assert line["address"] == f"{folder}/sö.sock"
    assert served.tetrad("check", "--user", "grün").status == 0
    ran = served.tetrad("check", "--user", "grüner")
    assert "argument --user: this machine has no user 'grüner'" in ran.err
    assert served.tetrad("reload").status == 0
    assert_other_file_is_named(served)
    served.command = outside
    assert "daemon.user: this machine has no user 'grün'" in served.tetrad("check").err
    assert served.tetrad("stop").status == 0


def assert_other_file_is_named(served: Daemon) -> None:
    """A command with another file for the same daemon names both."""
    file, served.file = served.file, os.path.join(served.folder, "ändern.yaml")
    served.configure()
    ran = served.tetrad("stop")
    assert ran.status == 1
    assert f"runs with {file}, not with {served.file};" in ran.err
    served.file = file
