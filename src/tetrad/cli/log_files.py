"""The files of a log: the current one, and those that logrotate has made of it. Prints nothing.

The daemon's user owns these files, and root reads them. So no named pipe is waited for, no link of
another user is followed, and unpacking takes little memory and has an end.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
from functools import partial
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

_BLOCK_BYTES = 1 << 16

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK

_MAX_UNPACKED_BYTES = 4 << 30

_MAX_XZ_BYTES = 1 << 27
"""The most memory for unpacking an xz file; one of `xz -9` needs half of it."""

_COMPRESSED = r"(?:\.(?:gz|bz2|xz|lzma|zst|lz4|Z))?"

_INDEX_DIGITS = 3
"""The most digits of the number of a rotated file."""

_DATE_DIGITS = 6
"""The least digits of its date: a year, and a month or a week. The number of a port has less."""


class UnreadableError(Exception):
    """A file, or the rest of it, is not read; the message is why."""


def open_regular(path: str) -> int:
    """Open a regular file for reading. Raises OSError, with the path, for any other one."""
    _require_regular(os.stat(path), path)
    try:
        fd = os.open(path, _FLAGS | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        fd = _open_link(path)
    try:
        _require_regular(os.fstat(fd), path)
    except OSError:
        os.close(fd)
        raise
    return fd


def _require_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)


def _open_link(path: str) -> int:
    """Open the file that a link leads to, unless another user would decide what root reads."""
    owner = os.lstat(path).st_uid
    fd = os.open(path, _FLAGS)
    if owner not in {0, os.geteuid(), os.fstat(fd).st_uid}:
        os.close(fd)
        message = f"a link of the user with id {owner} to a file of another user"
        raise PermissionError(errno.EPERM, message, path)
    return fd


def rotated(path: str) -> list[str]:
    """Return the files beside a log that are named like it, the latest first.

    logrotate adds a number or a date to the name; with `extension`, before the extension.
    """
    folder, name = os.path.split(path)
    root, extension = os.path.splitext(name)
    added = re.compile(rf"{re.escape(name)}([.-].+)", re.DOTALL)
    inserted = re.compile(rf"{re.escape(root)}([.-][\d.:T_-]+){re.escape(extension)}{_COMPRESSED}")
    ranks = {}
    for other in os.listdir(folder or "."):
        if match := added.fullmatch(other):
            ranks[other] = _rank(match[1]) or 0
        elif (match := inserted.fullmatch(other)) and (rank := _rank(match[1])) is not None:
            ranks[other] = rank
    # While a file is being compressed, both exist.
    names = [one for one in ranks if re.sub(f"{_COMPRESSED}$", "", one) not in ranks.keys() - {one}]
    keys = ((-_mtime(file := os.path.join(folder, one)), ranks[one], file) for one in names)
    return [file for _, _, file in sorted(keys)]


def _rank(added: str) -> int | None:
    """Return a number that sorts files of the same time by what was added to their names.

    None: neither a number, which is higher for older files, nor a date.
    """
    match = re.match(r"([.-])(\d[\d.:T_-]*)", added)
    digits = re.sub(r"\D", "", match[2]) if match else ""
    if match and match[1] == "." and len(digits) <= _INDEX_DIGITS:
        return int(digits)
    return -int(digits) if len(digits) >= _DATE_DIGITS else None


def _mtime(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def unpacked(fd: int, start: bytes) -> Generator[bytes] | None:
    """Return the content of a compressed file in pieces; None if it is not compressed.

    `start` is its beginning. The iterator raises UnreadableError.
    """
    for magic, unpack in _FORMATS.items():
        if start.startswith(magic):
            return _bounded(unpack(fd))
    return None


def _bounded(pieces: Iterator[bytes]) -> Generator[bytes]:
    size = 0
    try:
        for piece in pieces:
            size += len(piece)
            yield piece
            if size > _MAX_UNPACKED_BYTES:
                break
    except ImportError as error:
        raise UnreadableError(f"this Python has no module {error.name}") from None
    except (UnreadableError, OSError):
        raise
    except Exception as error:  # each format has errors of its own
        text = "incomplete or damaged; read in part" if size else "damaged"
        raise UnreadableError(text) from error
    if size > _MAX_UNPACKED_BYTES:
        raise UnreadableError("more than 4 GiB when unpacked; read in part")


def _gzip(fd: int) -> Iterator[bytes]:
    import gzip

    with open(fd, "rb", closefd=False) as file, gzip.open(file) as stream:
        yield from _pieces(stream)  # type: ignore[arg-type]


def _bzip2(fd: int) -> Iterator[bytes]:
    import bz2

    with open(fd, "rb", closefd=False) as file, bz2.open(file) as stream:
        yield from _pieces(stream)


def _xz(fd: int) -> Iterator[bytes]:
    """Unpack the streams of a file; `lzma.open` knows no limit of memory."""
    import lzma

    with open(fd, "rb", closefd=False) as file:
        data = file.read(_BLOCK_BYTES)
        while data:
            stream = lzma.LZMADecompressor(memlimit=_MAX_XZ_BYTES)
            yield stream.decompress(data, _BLOCK_BYTES)
            while not stream.eof:
                data = file.read(_BLOCK_BYTES) if stream.needs_input else b""
                if stream.needs_input and not data:
                    raise EOFError
                yield stream.decompress(data, _BLOCK_BYTES)
            data = stream.unused_data.lstrip(b"\0") or file.read(_BLOCK_BYTES).lstrip(b"\0")


def _program(name: str, fd: int) -> Iterator[bytes]:
    """Unpack a file with a program: Python 3.11 has no module for its format."""
    path = shutil.which(name)
    if path is None:
        raise UnreadableError(f"{name} is not installed")
    command = [path, "-dc"]
    with subprocess.Popen(  # noqa: S603
        command, stdin=fd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            if process.stdout is not None:
                yield from _pieces(process.stdout)
            if process.wait() != 0:
                raise EOFError
        finally:
            process.kill()


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    while piece := stream.read(_BLOCK_BYTES):
        yield piece


_FORMATS: dict[bytes, Callable[[int], Iterator[bytes]]] = {
    b"\x1f\x8b": _gzip,
    b"BZh": _bzip2,
    b"\xfd7zXZ\0": _xz,
    b"]\0\0": _xz,  # lzma
    b"\x28\xb5\x2f\xfd": partial(_program, "zstd"),
    b"\x50\x2a\x4d\x18": partial(_program, "zstd"),  # pzstd(1)
    b"\x04\x22\x4d\x18": partial(_program, "lz4"),
    b"\x1f\x9d": partial(_program, "gzip"),  # compress(1)
}
"""How a compressed file begins, and what unpacks it."""
