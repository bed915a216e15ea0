"""Installations of tetrad for the tests: copies of the package, in which versions are published."""

from __future__ import annotations

import os
import shutil

import tetrad

PACKAGE = os.path.dirname(tetrad.__file__)


class Installation:
    """A copy of the package in a folder that is first on the path of whoever has `environment`.

    A version that is published takes the place of the one before, file by file, as pip has it.
    """

    def __init__(self, folder: str) -> None:
        self.folder = os.path.join(folder, "installed")
        self._package = os.path.join(self.folder, "tetrad")
        self._published = 0
        shutil.copytree(PACKAGE, self._package, ignore=shutil.ignore_patterns("__pycache__"))
        self._edited: set[str] = set()

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a program is run from here."""
        return {"PYTHONPATH": self.folder}

    def publish(self, *edits: tuple[str, str, str]) -> str:
        """Install the next version, and return its name.

        An edit is a module's file, a text that stands in it, and what stands there from now on.
        What was edited in the version before is as it was.
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

    def _replace(self, file: str, text: str) -> None:
        path = os.path.join(self._package, file)
        with open(f"{path}.new", "w", encoding="utf-8") as new:
            new.write(text)
        # What is compiled is told from old by the second in which its source was written.
        os.utime(f"{path}.new", (self._published, self._published))
        os.replace(f"{path}.new", path)


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
