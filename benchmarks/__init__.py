"""Measures tetrad beside other servers that fork for each client: `python -m benchmarks`."""
