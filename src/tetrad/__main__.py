"""The command `tetrad`, which is `python -m tetrad`."""

from tetrad.system.lean_signal import signal

# Until there is somebody to tell of it, Ctrl-C ends us without a word.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from tetrad.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
