"""Tests of several tetrads behind HAProxy, each in a network of its own."""
