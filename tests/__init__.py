"""All tests, by what they need: tests/README.md describes the folders."""
