"""The configuration file: YAML in, the model out, and every problem with its line and column.

The file is read as a tree of nodes that know their place; the tree is
walked along the types of `tetrad.config.model`, so that one run finds everything that is wrong.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import types
import typing
from typing import TYPE_CHECKING, Any

import msgspec
import yaml
from msgspec import UNSET
from msgspec.structs import force_setattr

from tetrad.config import yaml_scalars
from tetrad.config.diagnostics import did_you_mean, explain, show, without_annotation
from tetrad.config.model import Config
from tetrad.config.result import ConfigResult
from tetrad.config.section import ConstraintError, Section
from tetrad.config.types import Address, Path, SocketPath
from tetrad.system.text import escape_unprintable

if TYPE_CHECKING:
    from collections.abc import Iterable

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map")}

_STEP = re.compile(r"[^.\[\]]+")  # of a path such as access.deny[0]

_MOST_NESTED = 64
_MOST_BYTES = 16 << 20  # what is longer is a device, or somebody's film


def load(file: str | None) -> ConfigResult:
    """Read a file, or the built-in defaults for None. Raises OSError; problems are returned."""
    if file is None:
        return ConfigResult(Config(), None, [], {})
    with open(file, "rb") as stream:
        data = stream.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise OSError(errno.EFBIG, f"more than {_MOST_BYTES >> 20} MiB: is this a configuration?")
    return read(data, file)


def read(data: bytes, file: str) -> ConfigResult:
    """Read what a file contains."""
    reader = _Reader(file)
    root = reader.compose(data)
    config = UNSET if root is None else reader.value(root, Config, "")
    if config is UNSET:
        config = Config()
        for name, section in reader.sound.items():
            force_setattr(config, name, section)
    spoilt = frozenset(reader.spoilt)
    return ConfigResult(config, file, reader.problems, reader.given, reader.places, spoilt)


class _Reader:
    """One reading of one file; collects problems and goes on."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[str] = []
        self.given: dict[str, int] = {}
        self.places: dict[str, str] = {}
        self.spoilt: set[str] = set()
        self.sound: dict[str, object] = {}

    def problem(self, mark: yaml.Mark | None, path: str, message: str) -> None:
        """Note what is wrong where; without a mark, at the beginning."""
        text = f"{path}: {message}" if path else message
        self.problems.append(f"{self.place(mark)}: {escape_unprintable(text)}")
        self.spoilt.add(path)

    def place(self, mark: yaml.Mark | None) -> str:
        line, column = (0, 0) if mark is None else (mark.line, mark.column)
        return f"{self.file}:{line + 1}:{column + 1}"

    def compose(self, data: bytes) -> yaml.Node | None:
        try:
            self.insist_on_depth(data)
            return yaml.compose(data, Loader=_LOADER)
        except yaml.reader.ReaderError as error:
            what = f"not a text file in UTF-8: {error.reason}"
            self.problem(_mark(data, error.position), "", what)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = ", ".join(part for part in (error.context, error.problem) if part)
            self.problem(mark, "", f"not YAML: {what}")
        return None

    def insist_on_depth(self, data: bytes) -> None:
        """Refuse what the library would descend into until the stack is full."""
        depth = 0
        for event in yaml.parse(data, Loader=_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MOST_NESTED:
                mark = typing.cast("yaml.Mark", event.start_mark)
                raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=mark)

    def value(self, node: yaml.Node, kind: Any, path: str) -> Any:
        """Read a node as a `kind`; UNSET where it is none, which is noted, or where it is empty."""
        if node.tag not in _TAGS:
            self.problem(node.start_mark, path, f"tags such as {node.tag} are not supported")
            return UNSET
        plain = without_annotation(kind)
        origin, arguments = typing.get_origin(plain), typing.get_args(plain)
        if origin is list:
            return self.sequence(node, arguments[0], path)
        if origin is dict:
            return self.mapping(node, arguments[0], arguments[1], path)
        if _is_section(plain):
            return self.section(node, plain, path)
        if origin is types.UnionType and any(map(_is_section, arguments)):
            return self.variant(node, arguments, path)
        return self.leaf(node, kind, path)

    def section(self, node: yaml.Node, kind: type[Section], path: str) -> Any:
        """Read a mapping whose keys are the fields of `kind`."""
        fields = _fields(kind)
        values: dict[str, Any] = {}
        for name, key, child in self.pairs(node, path):
            if name in fields:
                self.given[_join(path, name)] = key.start_mark.line + 1
                self.places[_join(path, name)] = self.place(child.start_mark)
                values[name] = self.field(child, fields[name], _join(path, name))
            else:
                hint = did_you_mean(name, fields)
                self.problem(key.start_mark, _join(path, name), f"there is no such key{hint}")
        required = {name for name, field in fields.items() if field.required}
        for name in sorted(required - values.keys()):
            self.problem(node.start_mark, _join(path, name), "is needed here")
        values = {name: value for name, value in values.items() if value is not UNSET}
        if not required <= values.keys():
            return UNSET
        try:
            return kind(**values)
        except ConstraintError as error:
            for where, message in error.misfits:
                self.problem(_place(node, where), _join(path, where), message)
                values.pop(where.partition("[")[0], None)
            self.sound = values
        return UNSET

    def field(self, node: yaml.Node, field: msgspec.structs.FieldInfo, path: str) -> Any:
        """Read the value of a known key; one that is needed may not be empty."""
        before = len(self.problems)
        value = self.value(node, field.type, path)
        if value is UNSET and field.required and len(self.problems) == before:
            self.problem(node.start_mark, path, f"expected a value, {_got(node)}")
        return value

    def sequence(self, node: yaml.Node, kind: Any, path: str) -> Any:
        """Read a list of `kind`."""
        if not isinstance(node, yaml.SequenceNode):
            if not _is_null(node):
                self.problem(node.start_mark, path, f"expected a list, {_got(node)}")
            return UNSET
        values = []
        for index, child in enumerate(node.value):
            self.given[f"{path}[{index}]"] = child.start_mark.line + 1
            values.append(self.value(child, kind, f"{path}[{index}]"))
        return UNSET if UNSET in values else values

    def mapping(
        self,
        node: yaml.Node,
        key_kind: Any,
        kind: Any,
        path: str,
    ) -> Any:
        """Read a mapping whose keys are the operator's."""
        values = {}
        for name, key, child in self.pairs(node, path):
            checked = self.convert(key, name, key_kind, _join(path, name))
            values[checked] = self.value(child, kind, _join(path, name))
        return {} if UNSET in values or UNSET in values.values() else values

    def variant(self, node: yaml.Node, kinds: Iterable[Any], path: str) -> Any:
        """Read the section whose first key is there; where there is but one, that one."""
        if _is_null(node):
            return None
        sections = {next(iter(_fields(kind))): kind for kind in kinds if _is_section(kind)}
        if len(sections) == 1:
            return self.section(node, next(iter(sections.values())), path)
        names = [_name(key) for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        for name in names:
            if name in sections:
                return self.section(node, sections[name], path)
        expected = f"expected one of the keys {', '.join(sections)}, {_got(node)}"
        hint = next(filter(None, (did_you_mean(name, sections) for name in names)), "")
        self.problem(node.start_mark, path, expected + hint)
        return UNSET

    def leaf(self, node: yaml.Node, kind: Any, path: str) -> Any:
        """Read a scalar."""
        if not isinstance(node, yaml.ScalarNode):
            self.problem(node.start_mark, path, f"expected a single value, {_got(node)}")
            return UNSET
        return self.convert(node, _scalar(node), kind, path)

    def convert(self, node: yaml.Node, value: object, kind: Any, path: str) -> Any:
        """Turn a scalar's value into a `kind`."""
        try:
            return msgspec.convert(value, kind, dec_hook=self.parse)
        except msgspec.ValidationError as error:
            self.problem(node.start_mark, path, explain(error, value, kind))
            return UNSET

    def parse(self, kind: Any, value: object) -> Any:
        """Read one of our own types; what it says of a path is meant of the whole path."""
        result = kind.parse(value)
        if isinstance(result, Path | SocketPath):
            return kind.parse(self.absolute(result))
        if isinstance(result, Address) and result.path is not None:
            return kind.parse(f"unix:{self.absolute(result.path)}")
        return result

    def absolute(self, path: str) -> str:
        """Make a relative path relative to the file's folder."""
        return os.path.normpath(os.path.join(os.path.dirname(self.file), path))

    def pairs(self, node: yaml.Node, path: str) -> Iterable[tuple[str, yaml.Node, yaml.Node]]:
        """Return a mapping's keys and values; a key that is there twice is a problem."""
        if _is_null(node):
            return []
        if not isinstance(node, yaml.MappingNode):
            self.problem(node.start_mark, path, f"expected keys and values, {_got(node)}")
            return []
        pairs: dict[str, tuple[str, yaml.Node, yaml.Node]] = {}
        for key, child in node.value:
            name = _name(key)
            if name in pairs:
                first = pairs[name][1].start_mark.line + 1
                self.problem(
                    key.start_mark, _join(path, name), f"this key is there already, in line {first}"
                )
            else:
                pairs[name] = (name, key, child)
        return pairs.values()


@functools.cache
def _fields(kind: type[Section]) -> dict[str, msgspec.structs.FieldInfo]:
    """Return a section's fields by their names; to ask the library for them takes its time."""
    return {field.name: field for field in msgspec.structs.fields(kind)}


def _scalar(node: yaml.ScalarNode) -> object:
    """Return what a scalar means; in quotes it is text."""
    text = typing.cast("str", node.value)
    return text if node.style in {"'", '"', "|", ">"} else yaml_scalars.read(text)


def _got(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return f"got {show(_scalar(node))}"
    return "got a list" if isinstance(node, yaml.SequenceNode) else "got keys and values"


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and _scalar(node) is None


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _name(key: yaml.Node) -> str:
    """Return a key's name; one that is a list, or keys itself, has none."""
    return typing.cast("str", key.value) if isinstance(key, yaml.ScalarNode) else "?"


def _mark(data: bytes, position: int) -> yaml.Mark:
    """Return where a byte stands that is none of a text's."""
    line, column = data.count(b"\n", 0, position), position - data.rfind(b"\n", 0, position) - 1
    return yaml.Mark("", position, line, column, None, 0)


def _place(node: yaml.Node, path: str) -> yaml.Mark:
    """Return where the value of a key begins, or as much of the way to it as is there."""
    for name in _STEP.findall(path):
        if isinstance(node, yaml.MappingNode):
            node = next((child for key, child in node.value if _name(key) == name), node)
        elif isinstance(node, yaml.SequenceNode):
            node = node.value[int(name)]
    return typing.cast("yaml.Mark", node.start_mark)


def _join(path: str, name: str) -> str:
    """Return where a key is; in quotes it is seen if it is empty, or has blanks at its ends."""
    name = name if name and name == name.strip() else repr(name)
    return f"{path}.{name}" if path else name
