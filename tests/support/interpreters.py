"""Python interpreters that lack functions or modules, as those that others have built do.

Such an interpreter is a copy of the one that runs the tests, with a standard library of links, but
for the first module that each interpreter loads.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from typing import TYPE_CHECKING

import tetrad

if TYPE_CHECKING:
    from collections.abc import Sequence

_PRELUDE = """
import sys as _sys


class _Lacking:
    def find_spec(name, path=None, target=None):
        for module, attribute in {names!r}:
            if module in _sys.modules:
                vars(_sys.modules[module]).pop(attribute, None)
        if name in {modules!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


_sys.meta_path.insert(0, _Lacking)
"""
"""Each import that follows deletes what is to be missing."""


def make_interpreter(folder: str, names: Sequence[str] = (), modules: Sequence[str] = ()) -> str:
    """Create an interpreter below `folder` without these names and modules; return its path.

    The names are those of C modules, such as `posix.memfd_create`.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = os.path.join(folder, "lib", version)
    original = sysconfig.get_path("stdlib")
    os.makedirs(os.path.join(folder, "bin"))
    os.makedirs(os.path.join(library, "encodings"))
    _link_all(original, library)
    _link_all(os.path.join(original, "encodings"), os.path.join(library, "encodings"))
    first = os.path.join(library, "encodings", "__init__.py")
    with open(first, encoding="utf-8") as file:
        text = file.read()
    os.unlink(first)
    with open(first, "w", encoding="utf-8") as file:
        file.write(
            text + _PRELUDE.format(names=[one.split(".") for one in names], modules=list(modules))
        )
    path = os.path.join(folder, "bin", version)
    shutil.copy2(os.path.realpath(sys.executable), path)
    return path


def environment_of(home: str) -> dict[str, str]:
    """Return variables with which such an interpreter imports tetrad and its libraries."""
    source = os.path.dirname(os.path.abspath(tetrad.__path__[0]))
    return {
        "PYTHONPATH": os.pathsep.join([source, sysconfig.get_path("purelib")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": home,
        "PATH": os.environ["PATH"],
    }


def _link_all(source: str, target: str) -> None:
    for name in os.listdir(source):
        path = os.path.join(target, name)
        if name != "__pycache__" and not os.path.exists(path):
            os.symlink(os.path.join(source, name), path)
