"""All tests; ARCHITECTURE.md describes the folders."""
