"""Damage tests: failing system calls, killed processes, floods, hostile clients, invalid input."""
