"""Writes a configuration as YAML that `tetrad.config.yaml_reader` reads back to the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import yaml

from tetrad.config import yaml_scalars

if TYPE_CHECKING:
    from tetrad.config.model import Config

_RARE_LINE_ENDS = {"\x85", "\u2028", "\u2029"}
"""Characters that end a line in YAML; PyYAML does not quote a string because of them."""


def dump(config: Config) -> str:
    """Return the YAML text. The key `port` of a Unix socket is left out, as it must not be set."""
    tree = msgspec.to_builtins(config, enc_hook=str)
    for listener in tree["listen"]:
        if listener["port"] is None:
            del listener["port"]
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Quotes strings that YAML 1.1 (PyYAML) or `yaml_scalars` would read as another type."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Return the node of a string."""
        node = super().represent_str(data)
        if _RARE_LINE_ENDS & set(data) or (
            node.style is None and not isinstance(yaml_scalars.read(data), str)
        ):
            node.style = '"'
        return node


_Dumper.add_representer(str, _Dumper.represent_str)
