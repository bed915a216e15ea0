"""A configuration, written as YAML: what `tetrad.config.yaml_reader` reads, the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import yaml

from tetrad.config import yaml_scalars

if TYPE_CHECKING:
    from tetrad.config.model import Config

_LINE_ENDS = {"\x85", "\u2028", "\u2029"}
"""What YAML takes for the end of a line, besides those that everybody does."""


def dump(config: Config) -> str:
    """Write a configuration as YAML that loads back to the same."""
    tree = msgspec.to_builtins(config, enc_hook=str)
    for listener in tree["listen"]:
        if listener["port"] is None:
            del listener["port"]
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Puts texts in quotes that would be read as something else, by YAML 1.1 and by us."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Write a text."""
        node = super().represent_str(data)
        if _LINE_ENDS & set(data) or (
            node.style is None and not isinstance(yaml_scalars.read(data), str)
        ):
            node.style = '"'
        return node


_Dumper.add_representer(str, _Dumper.represent_str)
