"""Tests of three daemons behind HAProxy, each in a network namespace of its own."""
