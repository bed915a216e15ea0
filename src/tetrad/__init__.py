"""tetrad: a forking TCP daemon that answers four-byte commands.

Nothing is imported here: every program of the package, the lean master among them, passes through.
"""

__version__ = "0.2.0.dev0"
