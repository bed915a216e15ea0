"""Attacks on a daemon: each of them is done, and does not have its effect."""
