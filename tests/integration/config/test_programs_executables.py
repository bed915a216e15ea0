"""Programs of commands that the kernel cannot execute: the message tells why, with the way out."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tetrad.config import programs

if TYPE_CHECKING:
    import pathlib


def problem_of(path: pathlib.Path) -> str:
    """Return why a program is refused, without its path."""
    with pytest.raises(ValueError, match=str(path)) as refused:
        programs.find_program(str(path), programs.PATH)
    return str(refused.value).replace(str(path), "P")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"echo x\n", "P names no interpreter: begin it with a line such as #!/bin/sh"),
        (b"", "P names no interpreter: begin it with a line such as #!/bin/sh"),
        (b"#!\necho x\n", "P names no interpreter behind #!"),
        (b"#!/no/sh -e\n", "P: its interpreter /no/sh does not exist"),
        (b"#!/etc/passwd\n", "P: its interpreter /etc/passwd is not executable"),
        (
            b"#!/bin/sh\r\necho x\r\n",
            (
                "P: the line of its interpreter /bin/sh ends with a carriage return (CRLF); "
                "sed -i 's/\\r$//' P removes it"
            ),
        ),
    ],
)
def test_a_script_that_cannot_run(tmp_path: pathlib.Path, text: bytes, problem: str) -> None:
    """The message names the interpreter."""
    script = tmp_path / "script"
    script.write_bytes(text)
    script.chmod(0o755)
    assert problem_of(script) == problem


def test_a_dangling_link(tmp_path: pathlib.Path) -> None:
    """The message names where it leads."""
    link = tmp_path / "link"
    link.symlink_to("/no/program")
    assert problem_of(link) == "P is a link to /no/program, which does not exist"


def test_a_program_for_another_c_library(tmp_path: pathlib.Path) -> None:
    """Its dynamic linker is named, as for a program that was built with musl."""
    with open(os.path.realpath("/bin/true"), "rb") as file:
        data = file.read()
    if b"/lib64/ld-linux-x86-64.so.2" not in data:
        pytest.skip("the dynamic linker of another machine")
    program = tmp_path / "program"
    program.write_bytes(
        data.replace(b"/lib64/ld-linux-x86-64.so.2", b"/lib64/ld-linux-x86-64.so.9")
    )
    program.chmod(0o755)
    assert problem_of(program) == "P: its interpreter /lib64/ld-linux-x86-64.so.9 does not exist"


def test_programs_of_this_system_are_accepted(tmp_path: pathlib.Path) -> None:
    """Dynamically linked ones, and scripts."""
    for name in ("sh", "true", "ls"):
        assert programs.find_program(name, programs.PATH) == shutil.which(name, path=programs.PATH)
    script = tmp_path / "script"
    script.write_text("#!/bin/sh -e\n")
    script.chmod(0o755)
    assert programs.find_program(str(script), "") == str(script)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount: run the tests as root")
def test_a_file_system_that_is_mounted_noexec(tmp_path: pathlib.Path) -> None:
    """The mode of the program is not at fault."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    subprocess.run(["/bin/mount", "--bind", tmp_path, tmp_path], check=True)
    try:
        subprocess.run(["/bin/mount", "-o", "remount,bind,noexec", tmp_path], check=True)
        assert problem_of(script) == "P is on a file system that is mounted noexec"
    finally:
        subprocess.run(["/bin/umount", tmp_path], check=True)


def test_a_setuid_program(tmp_path: pathlib.Path) -> None:
    """It runs, but gains nothing, which `tetrad check` says."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert not programs.is_setuid(str(program))
    program.chmod(0o4755)
    assert programs.is_setuid(str(program))
