"""Copies of the tetrad package, in which a test installs new versions."""

from __future__ import annotations

import compileall
import os
import shutil
from typing import TYPE_CHECKING

import tetrad

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = os.path.dirname(tetrad.__file__)


def compile_package(folder: str) -> str:
    """Copy the package into a folder, compile it, and return the path of the copy."""
    copy = os.path.join(folder, "tetrad")
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert compileall.compile_dir(copy, quiet=1)
    return copy


class Installation:
    """A copy of the package, or of a compiled copy. `environment` puts it on the path of Python.

    Installing a version replaces the files one by one, as pip does.
    """

    def __init__(self, folder: str, compiled: str = PACKAGE) -> None:
        self.folder = os.path.join(folder, "installed")
        self._package = os.path.join(self.folder, "tetrad")
        self._published = 0
        # A copy has the times of the original, with which Python compares the compiled files.
        shutil.copytree(compiled, self._package)
        self._edited: set[str] = set()

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which a program uses this copy."""
        return {"PYTHONPATH": self.folder}

    def publish(self, *edits: tuple[str, str, str]) -> str:
        """Install the next version, and return its number.

        An edit is a file of the package, a text in it, and its replacement. The edits of the
        previous version are undone.
        """
        self._published += 1
        version = f"0.1.{self._published}"
        before, self._edited = self._edited, set()
        name = "__version__ = "
        changes = [("__init__.py", f'{name}"{tetrad.__version__}"', f'{name}"{version}"'), *edits]
        texts = {file: _read(os.path.join(PACKAGE, file)) for file in before}
        for file, old, new in changes:
            text = texts[file] if file in self._edited else _read(os.path.join(PACKAGE, file))
            assert old in text, f"{file} has no {old!r}"
            texts[file] = text.replace(old, new, 1)
            self._edited.add(file)
        for file, text in texts.items():
            self._replace(file, text)
        return version

    def replace(self, file: str, change: Callable[[str], str]) -> None:
        """Replace a file by another one with the changed text; the version number stays."""
        self._published += 1
        self._replace(file, change(_read(os.path.join(self._package, file))))

    def _replace(self, file: str, text: str) -> None:
        path = os.path.join(self._package, file)
        with open(f"{path}.new", "w", encoding="utf-8") as new:
            new.write(text)
        # Python compares compiled files with the modification time of the source, in whole seconds.
        os.utime(f"{path}.new", (self._published, self._published))
        os.replace(f"{path}.new", path)


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
