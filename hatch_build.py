"""Build hook: the long description in the package's metadata.

It is README.md without relative links and images: on a page of a package index these would lead
nowhere. The files that they name are in the source distribution.
"""

from __future__ import annotations

import os
import re

from hatchling.metadata.plugin.interface import MetadataHookInterface

_IMAGE = re.compile(r"!\[([^\]]*)\]\((?!\w+:)([^)]*)\)")
_LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:|#)([^)]*)\)")

_NOTE = "\n\nFiles and folders named on this page are in the source distribution.\n"


class LongDescription(MetadataHookInterface):
    """Sets `readme` from README.md."""

    def update(self, metadata: dict[str, object]) -> None:
        """Set the field. Raises OSError."""
        with open(os.path.join(self.root, "README.md"), encoding="utf-8") as file:
            text = without_relative_links(file.read())
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def without_relative_links(text: str) -> str:
    """Return Markdown with each relative link or image replaced by its text and its path."""
    text = _LINK.sub(_named, _IMAGE.sub(r"\1: `\2`", text))
    title, _, rest = text.partition("\n")
    return title + _NOTE + rest


def _named(match: re.Match[str]) -> str:
    text, path = match.groups()
    return f"`{path}`" if text.strip("`") in path else f"{text} (`{path}`)"
