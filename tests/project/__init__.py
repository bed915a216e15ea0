"""Tests of the project's files: documentation, shipped files, layout of the source."""
