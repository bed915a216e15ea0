"""Tests of single modules with real sockets and processes, without a daemon."""
