"""`python -m tetrad.paper FOLDER` writes the files anew."""

from __future__ import annotations

import os
import sys

from tetrad.paper.files import files


def main(arguments: list[str]) -> int:
    """Write every file below the folder that is named."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m tetrad.paper FOLDER\n")
        return 2
    for name, text in files().items():
        path = os.path.join(arguments[0], name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
