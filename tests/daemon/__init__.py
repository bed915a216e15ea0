"""Tests of the real daemon, in files named after its behaviour."""
