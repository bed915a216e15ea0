"""Folders of other users among those that Python imports from, when root runs tetrad."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.fixtures import MakeDaemon

MODULES = ("__future__", "argparse", "daemon", "json", "msgspec", "signal", "structlog", "yaml")
"""Some that the commands or the logger import."""

TAKEN = """
import os
with open({path!r}, "a") as file:
    file.write(f"{{__name__}} as {{os.getuid()}}\\n")
raise ImportError(__name__)
"""


@pytest.fixture
def hostile(make_nobodys_folder: Callable[[], str]) -> str:
    """Return a folder of nobody, with modules of its own under the names of others."""
    folder = make_nobodys_folder()
    for name in MODULES:
        with open(os.path.join(folder, f"{name}.py"), "w", encoding="utf-8") as file:
            file.write(TAKEN.format(path=os.path.join(folder, "taken")))
    return folder


@pytest.mark.parametrize("way", ["working directory", "PYTHONPATH", "link", "shared"])
def test_root_imports_nothing_from_folders_of_others(
    prepared: MakeDaemon, hostile: str, tmp_path_factory: pytest.TempPathFactory, way: str
) -> None:
    """Neither a command nor the daemon; the command names the folder and its owner."""
    served = prepared()
    place, fault = hostile, "belongs to user id 65534"
    if way == "link":
        place = str(tmp_path_factory.mktemp("root") / "modules")
        os.symlink(hostile, place)
    elif way == "shared":
        os.chown(hostile, 0, 0)
        os.chmod(hostile, 0o777)  # noqa: S103 - a mistake of root
        fault = "is writable for other users"
    if way == "working directory":
        options = {"cwd": place}
    else:
        options = {}
        served.environment["PYTHONPATH"] = place
    warning = f"tetrad: warning: no Python module is used from {place}: {hostile} {fault}; "
    is_enough = way in {"link", "shared"}
    for command in ("check",) if is_enough else ("start", "reload"):
        ran = served.tetrad(command, **options)
        if command == "start":
            served.adopt(ran.out)
        assert (ran.status, ran.err.count(warning)) == (0, 1), ran
    if not is_enough:
        assert ANSWER.fullmatch(served.served().ask())
        assert served.logger
    assert not os.path.exists(os.path.join(hostile, "taken"))


def test_other_users_import_as_ever(make_nobodys_folder: Callable[[], str]) -> None:
    """Their folders are their own business."""
    command, variables = [sys.executable, "-m", "tetrad", "check"], {"PATH": os.environ["PATH"]}
    folder = make_nobodys_folder()
    ran = run(command, variables, cwd=folder, user="nobody", extra_groups=[])
    assert "no Python module is used" not in ran.err
