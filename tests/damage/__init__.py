"""Damage, done for real: what fails, dies, floods and lies, and what tetrad makes of it."""
