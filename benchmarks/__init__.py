"""Compares tetrad with other servers that fork for each client: `python -m benchmarks`."""
