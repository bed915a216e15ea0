"""Reads a configuration file: YAML to the model, with the location of every error.

YAML is composed to a tree of nodes with line and column. The tree is walked along the types of
`tetrad.config.model`, and goes on after an error, so that one run reports all errors.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import types
import typing
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import yaml
from msgspec import UNSET
from msgspec.structs import force_setattr

from tetrad.config import paths, yaml_scalars
from tetrad.config.diagnostics import describe, did_you_mean, show, strip_annotation
from tetrad.config.model import Config
from tetrad.config.result import ConfigResult
from tetrad.config.section import ConstraintError, ConstraintViolation, Section
from tetrad.config.types import Address, Path, SocketPath
from tetrad.system.text import escape_unprintable

if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN = "plain"
"""The tag of a scalar without quotes and without a tag in the file."""


def _loader(base: Any) -> Any:
    """Return a loader like `base`, which knows no types, but with _PLAIN for plain scalars."""

    class Loader(base):  # type: ignore[misc]
        def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
            """Return the tag of a node that has none in the file."""
            is_plain = kind is yaml.ScalarNode and implicit[0]
            return _PLAIN if is_plain else super().resolve(kind, value, implicit)

    return Loader


_LOADER = _loader(getattr(yaml, "CBaseLoader", yaml.BaseLoader))
_TAGS = {_PLAIN, *(f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map"))}

_STEP = re.compile(r"[^.\[\]]+")  # of a path such as access.deny[0]

_MAX_DEPTH = 64
_MAX_BYTES = 16 << 20


def load(file: str | None) -> ConfigResult:
    """Read a file, or return the built-in defaults for None.

    Errors in the file are part of the result. Raises OSError if the file cannot be read.
    """
    paths.use_defaults_of(file)
    if file is None:
        return ConfigResult(Config(), None, [], {})
    with open(file, "rb") as stream:
        data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise OSError(errno.EFBIG, f"larger than {_MAX_BYTES >> 20} MiB: not a configuration file")
    return read(data, file)


def read(data: bytes, file: str) -> ConfigResult:
    """Read the contents of a file; `file` is its path, for locations and relative paths."""
    reader = _Reader(file)
    if not data:
        reader.report(None, "", "empty, as a failed write leaves it; write {} for the defaults")
    root = reader.compose(data)
    config = UNSET if root is None else reader.value(root, Config, "")
    if config is UNSET:
        config = Config()
        for name, section in reader.valid_sections.items():
            force_setattr(config, name, section)
    return ConfigResult(
        config,
        file,
        reader.problems,
        reader.key_lines,
        reader.value_locations,
        frozenset(reader.faulty_keys),
        zlib.crc32(data),
    )


class _Mark(NamedTuple):
    """A place in the file, both counted from 0, like the attributes of a `yaml.Mark`."""

    line: int
    column: int


class _Reader:
    """Reads one file once. Attributes are as in ConfigResult.

    Methods that read a node return UNSET if it has an error, which is recorded, or no value.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[str] = []
        self.key_lines: dict[str, int] = {}
        self.value_locations: dict[str, str] = {}
        self.faulty_keys: set[str] = set()
        self.valid_sections: dict[str, object] = {}

    def report(self, mark: yaml.Mark | _Mark | None, path: str, message: str) -> None:
        """Record an error at a mark; without a mark it is at the start of the file."""
        text = f"{path}: {message}" if path else message
        self.problems.append(f"{self.location(mark)}: {escape_unprintable(text)}")
        self.faulty_keys.add(path)

    def location(self, mark: yaml.Mark | _Mark | None) -> str:
        """Return a mark as `FILE:LINE:COLUMN`, both counted from 1."""
        line, column = (0, 0) if mark is None else (mark.line, mark.column)
        return f"{self.file}:{line + 1}:{column + 1}"

    def compose(self, data: bytes) -> yaml.Node | None:
        """Return the root node, or None if the file has no value or is not YAML."""
        try:
            self.check_depth(data)
            return yaml.compose(data, Loader=_LOADER)
        except yaml.reader.ReaderError as error:
            message = f"not a UTF-8 text file: {error.reason}"
            self.report(_mark_of_byte(data, error.position), "", message)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = ", ".join(part for part in (error.context, error.problem) if part)
            self.report(mark, "", f"invalid YAML: {message}")
        return None

    def check_depth(self, data: bytes) -> None:
        """Raise MarkedYAMLError for deep nesting: PyYAML recurses until the stack overflows."""
        depth = 0
        for event in yaml.parse(data, Loader=_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                mark: Any = event.start_mark  # of Python or of C
                message = f"nested more than {_MAX_DEPTH} levels deep"
                raise yaml.MarkedYAMLError(problem=message, problem_mark=mark)

    def value(self, node: yaml.Node, kind: Any, path: str) -> Any:
        """Read a node as a value of any type of the model."""
        if node.tag not in _TAGS:
            self.report(node.start_mark, path, f"the YAML tag {node.tag} is not supported")
            return UNSET
        plain = strip_annotation(kind)
        origin, arguments = typing.get_origin(plain), typing.get_args(plain)
        if origin is list:
            return self.sequence(node, arguments[0], path)
        if origin is dict:
            return self.mapping(node, arguments[0], arguments[1], path)
        if _is_section(plain):
            return self.section(node, plain, path)
        if origin is types.UnionType and any(map(_is_section, arguments)):
            return self.union(node, arguments, path)
        return self.scalar(node, kind, path)

    def is_certain(self, violation: ConstraintViolation, path: str) -> bool:
        """Tell whether the values of a violation have no errors; a default is in their place."""
        for key in filter(None, (violation.key, violation.other)):
            place = _join(path, key)
            parts = f"{place}.", f"{place}["
            if any(one == place or one.startswith(parts) for one in self.faulty_keys):
                return False
        return True

    def section(self, node: yaml.Node, kind: type[Section], path: str) -> Any:
        """Read a mapping whose keys are the fields of `kind`."""
        if not self.is_mapping(node, path):
            return UNSET
        fields = _fields(kind)
        values: dict[str, Any] = {}
        for name, key, child in self.pairs(node, path):
            if name in fields:
                self.key_lines[_join(path, name)] = key.start_mark.line + 1
                self.value_locations[_join(path, name)] = self.location(child.start_mark)
                values[name] = self.field(child, fields[name], _join(path, name))
            else:
                hint = did_you_mean(name, fields)
                self.report(key.start_mark, _join(path, name), f"unknown key{hint}")
        required = [name for name, field in fields.items() if field.required]
        for name in required:
            if name not in values:
                self.report(node.start_mark, _join(path, name), "this key is required")
        values = {name: value for name, value in values.items() if value is not UNSET}
        if not all(name in values for name in required):
            return UNSET
        try:
            return kind(**values)
        except ConstraintError as error:
            certain = [one for one in error.violations if self.is_certain(one, path)]
            for where, message, _ in certain:
                self.report(_mark_of_value(node, where), _join(path, where), message)
            for where, _, _ in error.violations:
                values.pop(where.partition("[")[0], None)
            self.valid_sections = values
        return UNSET

    def field(self, node: yaml.Node, field: msgspec.structs.FieldInfo, path: str) -> Any:
        """Read the value of a field; a required one must have a value."""
        before = len(self.problems)
        value = self.value(node, field.type, path)
        if value is UNSET and field.required and len(self.problems) == before:
            self.report(node.start_mark, path, f"expected a value, {_got(node)}")
        return value

    def sequence(self, node: yaml.Node, kind: Any, path: str) -> Any:
        """Read a list of values of `kind`."""
        if not isinstance(node, yaml.SequenceNode):
            if not _is_null(node):
                self.report(node.start_mark, path, f"expected a list, {_got(node)}")
            return UNSET
        values = []
        for index, child in enumerate(node.value):
            self.key_lines[f"{path}[{index}]"] = child.start_mark.line + 1
            values.append(self.value(child, kind, f"{path}[{index}]"))
        return UNSET if UNSET in values else values

    def mapping(self, node: yaml.Node, key_kind: Any, kind: Any, path: str) -> Any:
        """Read a mapping whose keys are values of `key_kind`."""
        values = {}
        for name, key, child in self.pairs(node, path):
            checked = self.convert(key, name, key_kind, _join(path, name))
            values[checked] = self.value(child, kind, _join(path, name))
        return {} if UNSET in values or UNSET in values.values() else values

    def union(self, node: yaml.Node, kinds: Iterable[Any], path: str) -> Any:
        """Read one of several sections, told apart by their first field; null is None."""
        if _is_null(node):
            return None
        sections = {next(iter(_fields(kind))): kind for kind in kinds if _is_section(kind)}
        if len(sections) == 1:
            return self.section(node, next(iter(sections.values())), path)
        names = [_name(key) for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        used = [name for name in dict.fromkeys(names) if name in sections]
        if len(used) == 1:
            return self.section(node, sections[used[0]], path)
        choices = ", ".join(sections)
        if used:
            second_key, _ = node.value[names.index(used[1])]
            self.report(second_key.start_mark, path, f"only one of {choices}")
            return UNSET
        got = f"got {', '.join(names)}" if names else _got(node)
        hint = next(filter(None, (did_you_mean(name, sections) for name in names)), "")
        self.report(node.start_mark, path, f"expected one of the keys {choices}, {got}{hint}")
        return UNSET

    def scalar(self, node: yaml.Node, kind: Any, path: str) -> Any:
        """Read a value that is neither a list nor a mapping."""
        if not isinstance(node, yaml.ScalarNode):
            self.report(node.start_mark, path, f"expected a single value, {_got(node)}")
            return UNSET
        return self.convert(node, _scalar_value(node), kind, path)

    def convert(self, node: yaml.Node, value: object, kind: Any, path: str) -> Any:
        """Convert the value of a scalar node to a `kind`."""
        try:
            return msgspec.convert(value, kind, dec_hook=self.parse)
        except msgspec.ValidationError as error:
            self.report(node.start_mark, path, describe(error, value, node.value, kind))
            return UNSET

    def parse(self, kind: Any, value: object) -> Any:
        """Read a type of `tetrad.config.types`; the limits of a path apply to its absolute form."""
        result = kind.parse(value)
        if isinstance(result, Path | SocketPath):
            return kind.parse(self.absolute(result))
        if isinstance(result, Address) and result.path is not None:
            return kind.parse(f"unix:{self.absolute(result.path)}")
        return result

    def absolute(self, path: str) -> str:
        """Return a path that is relative to the file's folder as an absolute path."""
        return os.path.normpath(os.path.join(os.path.dirname(self.file), path))

    def is_mapping(self, node: yaml.Node, path: str) -> bool:
        """Tell whether a node is a mapping, or null for an empty one; otherwise report it."""
        is_mapping = isinstance(node, yaml.MappingNode) or _is_null(node)
        if not is_mapping:
            self.report(node.start_mark, path, f"expected a mapping, {_got(node)}")
        return is_mapping

    def pairs(self, node: yaml.Node, path: str) -> Iterable[tuple[str, yaml.Node, yaml.Node]]:
        """Return the names, key nodes and value nodes of a mapping; duplicates are reported."""
        if not self.is_mapping(node, path) or _is_null(node):
            return []
        pairs: dict[str, tuple[str, yaml.Node, yaml.Node]] = {}
        for key, child in node.value:
            name = _name(key)
            if name in pairs:
                first = pairs[name][1].start_mark.line + 1
                message = f"duplicate key; it is already set in line {first}"
                self.report(key.start_mark, _join(path, name), message)
            else:
                pairs[name] = (name, key, child)
        return pairs.values()


@functools.cache
def _fields(kind: type[Section]) -> dict[str, msgspec.structs.FieldInfo]:
    """Return the fields of a section by name; msgspec inspects the type anew for each call."""
    return {field.name: field for field in msgspec.structs.fields(kind)}


def _scalar_value(node: yaml.ScalarNode) -> object:
    """Return the value of a scalar; one in quotes, or with the tag `!!str`, is a string."""
    text: str = node.value
    return yaml_scalars.read(text) if node.tag == _PLAIN else text


def _got(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return f"got {show(_scalar_value(node))}"
    kind = "list" if isinstance(node, yaml.SequenceNode) else "mapping"
    return f"got a {kind}" if node.value else f"got an empty {kind}"


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and _scalar_value(node) is None


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _name(key: yaml.Node) -> str:
    """Return the name of a key; `?` stands for a key that is a list or a mapping."""
    name: str = key.value if isinstance(key, yaml.ScalarNode) else "?"
    return name


def _mark_of_byte(data: bytes, position: int) -> _Mark:
    """Return the line and column of an invalid byte."""
    line, column = data.count(b"\n", 0, position), position - data.rfind(b"\n", 0, position) - 1
    return _Mark(line, column)


def _mark_of_value(node: yaml.Node, path: str) -> yaml.Mark:
    """Return the start of the value at a path, or of its nearest ancestor in the file."""
    for name in _STEP.findall(path):
        if isinstance(node, yaml.MappingNode):
            node = next((child for key, child in node.value if _name(key) == name), node)
        elif isinstance(node, yaml.SequenceNode):
            node = node.value[int(name)]
    mark: yaml.Mark = node.start_mark
    return mark


def _join(path: str, name: str) -> str:
    """Append a key to a path; an empty key, or one with outer spaces, is quoted to be visible."""
    name = name if name and name == name.strip() else repr(name)
    return f"{path}.{name}" if path else name
