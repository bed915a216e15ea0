"""The entry point of the command `tetrad` and of `python -m tetrad`."""

import os
import sys

from tetrad.system import module_path

# Before any other import: the working directory may have modules of these names.
if os.geteuid() == 0:
    module_path.restrict()

from tetrad.system.lean_signal import signal

# Until `tetrad.cli.main` handles it, Ctrl-C ends the process without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# Arguments, file names and texts are UTF-8, whatever the locale; the pid stays.
if sys.getfilesystemencoding() != "utf-8":
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])

from tetrad.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
