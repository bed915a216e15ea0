"""The digest of tetrad's code: it tells whether two programs run the same files of the package.

Two builds can have one version number, as during development or with a patched package; their
configurations and messages can differ all the same.
"""

from __future__ import annotations

import hashlib
import os

import tetrad


def code_digest(folder: str = tetrad.__path__[0]) -> str:
    """Return a digest of the names and the contents of all modules below a folder."""
    digest = hashlib.sha256()
    for path in sorted(_modules(folder)):
        content = _read(path)
        digest.update(f"{os.path.relpath(path, folder)}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _modules(folder: str) -> list[str]:
    return [
        os.path.join(top, name)
        for top, _, names in os.walk(folder)
        for name in names
        if name.endswith(".py")
    ]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""  # it is being replaced at this moment: the digest is that of no version
