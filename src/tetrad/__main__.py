"""The entry point of the command `tetrad` and of `python -m tetrad`."""

from tetrad.system.lean_signal import signal

# Until `tetrad.cli.main` handles it, Ctrl-C ends the process without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from tetrad.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
