"""The checkout that is tested."""

from __future__ import annotations

import pathlib

ROOT = pathlib.Path(__file__).parents[2]
"""The folder of the project."""
