"""Starts a daemon with a listening socket, as systemd does."""

START_AS_SYSTEMD_DOES = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "tetrad", "start", "-c", sys.argv[2]])
"""
"""The program; its arguments are the descriptor of the socket, and the configuration file."""
