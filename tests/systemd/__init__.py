"""Tests of the service under a real systemd, in a container that they boot themselves."""
