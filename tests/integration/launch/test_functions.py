"""Python functions of commands are checked by a process that imports them."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

import pytest

from tests.support.configuration_files import read
from tetrad.config.diagnostics import ConfigError
from tetrad.launch import functions
from tetrad.launch.privileges import Identity

LACKING = "ModuleNotFoundError: No module named 'no_such_thing'"
MODULE = """
number = 7
def none(): pass
def one(context): return "x"
def more(context, color): pass
def either(context, color="red"): pass
async def later(context): pass
def bits(context): yield b""
class Kind:
    @staticmethod
    def method(context): return b""
"""


def problems(folder: Path, *names: str, identity: Identity | None = None) -> list[str]:
    """Return the errors of a file with a command for each function, without the file's name."""
    file = folder / "tetrad.yaml"
    lines = [f"  cmd{index}: {{call: {name}}}\n" for index, name in enumerate(names)]
    loaded = read(file, "commands:\n" + "".join(lines))
    assert loaded.problems == []
    try:
        functions.check(loaded, identity)
    except ConfigError as error:
        return [problem.removeprefix(f"{file}:") for problem in error.problems]
    return []


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of modules that this process and its children can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "answers.py").write_text(MODULE)
    (folder / "broken.py").write_text("raise RuntimeError('not today')")
    (folder / "wrong.py").write_text("def f(:")
    (folder / "lacking.py").write_text("import no_such_thing")
    (folder / "leaving.py").write_text("import os; os._exit(3)")
    (folder / "at_end.py").write_text("import os; os._exit(0)")
    (folder / "stopping.py").write_text("raise SystemExit(0)")
    (folder / "talking.py").write_text("print('hello')\ndef f(context): return ''")
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    return folder


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no_such:f", "no module named no_such"),
        ("os.no_such:f", "no module named os.no_such"),
        ("answers:f", "module answers has no attribute f"),
        ("answers:Kind.f", "module answers has no attribute Kind.f"),
        ("answers:number", "answers:number is not a function"),
        ("answers:none", "answers:none must take one argument, the context"),
        ("answers:more", "answers:more must take one argument, the context"),
        (
            "answers:later",
            "answers:later is a coroutine or generator function; use a plain function",
        ),
        ("answers:bits", "answers:bits is a coroutine or generator function; use a plain function"),
        (
            "broken:f",
            "broken:f cannot be imported: RuntimeError: not today (broken.py:1)",
        ),
        ("stopping:f", "stopping:f cannot be imported: SystemExit: 0 (stopping.py:1)"),
        (
            "lacking:f",
            f"lacking:f cannot be imported: {LACKING} (lacking.py:1)",
        ),
        ("at_end:f", "the Python interpreter exited while importing at_end"),
        ("leaving:f", "the Python interpreter exited while importing leaving"),
    ],
)
def test_a_function_that_cannot_be_called_is_reported(
    tmp_path: Path, name: str, problem: str
) -> None:
    """Every error of a module is one line with a location."""
    assert problems(tmp_path, name) == [f"2:16: commands.cmd0.call: {problem}"]


@pytest.mark.usefixtures("modules")
def test_a_module_with_a_syntax_error_is_reported(tmp_path: Path) -> None:
    """A syntax error is one line."""
    (found,) = problems(tmp_path, "wrong:f")
    assert "wrong:f cannot be imported: SyntaxError: " in found


@pytest.mark.usefixtures("modules")
def test_callable_functions_are_accepted(tmp_path: Path) -> None:
    """So are static methods and functions that are written in C."""
    names = ["answers:one", "answers:either", "answers:Kind.method", "talking:f", "os:fspath"]
    assert problems(tmp_path, *names) == []
    assert "answers" not in sys.modules  # other processes have imported it


@pytest.mark.usefixtures("modules")
def test_each_function_has_its_own_error(tmp_path: Path) -> None:
    """Functions of one module are checked by one process, and all errors are found in one run."""
    names = ["answers:one", "answers:none", "answers:f", "leaving:f", "answers:one", "broken:f"]
    found = [problem.partition(".call: ")[::2] for problem in problems(tmp_path, *names)]
    assert found == [
        ("3:16: commands.cmd1", "answers:none must take one argument, the context"),
        ("4:16: commands.cmd2", "module answers has no attribute f"),
        ("5:16: commands.cmd3", "the Python interpreter exited while importing leaving"),
        (
            "7:16: commands.cmd5",
            "broken:f cannot be imported: RuntimeError: not today (broken.py:1)",
        ),
    ]


MEETING = """
import os, time
open({own!r}, "w").close()
while not os.path.exists({other!r}):
    time.sleep(0.005)
def f(context): return ""
"""


def test_modules_are_imported_at_the_same_time(modules: Path, tmp_path: Path) -> None:
    """Each of these waits for the other one."""
    marks = [str(tmp_path / name) for name in ("east.mark", "west.mark")]
    (modules / "east.py").write_text(MEETING.format(own=marks[0], other=marks[1]))
    (modules / "west.py").write_text(MEETING.format(own=marks[1], other=marks[0]))
    assert problems(tmp_path, "east:f", "west:f") == []


def test_one_deadline_is_for_all_modules_and_the_slow_one_is_named(
    modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says which import is slow; the process that imports it is killed."""
    (modules / "slow.py").write_text(
        f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(1000)"
    )
    monkeypatch.setattr(functions, "IMPORT_TIMEOUT_SECONDS", 1.0)
    assert problems(tmp_path, "slow:f", "answers:one", "slow:g") == [
        "2:16: commands.cmd0.call: importing slow took longer than 1 s"
    ]
    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_modules_are_imported_as_the_user_who_will_serve(
    modules: Path, nobodys_folder: str
) -> None:
    """A module that this user cannot read is an error, and its code does not run as root."""
    nobody = pwd.getpwnam("nobody")
    identity = Identity(nobody.pw_uid, nobody.pw_gid)
    note = Path(nobodys_folder, "note")
    code = f"import os\nopen({str(note)!r}, 'w').write(f'{{os.getresuid()}} {{os.getgroups()}}')"
    sys.path.append(nobodys_folder)  # restored by the fixture `modules`
    Path(nobodys_folder, "visible.py").write_text(f"{code}\ndef f(context): return ''")
    (modules / "hidden.py").write_text("def f(context): return ''")
    (modules / "hidden.py").chmod(0o600)
    found = problems(Path(nobodys_folder), "visible:f", "hidden:f", identity=identity)
    uid = nobody.pw_uid
    assert note.read_text() == f"{(uid, uid, uid)} {os.getgrouplist('nobody', nobody.pw_gid)}"
    assert len(found) == 1
    assert found[0].startswith("3:16: commands.cmd1.call: ")


def test_a_check_that_cannot_be_executed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program is named."""
    program = str(tmp_path / "python")
    monkeypatch.setattr(sys, "executable", program)
    text = f"cannot check the functions of commands: {program}: no such file or directory"
    assert problems(tmp_path, "answers:one") == [text]
