"""The program `parity`, and `python -m parity_dagster`.

While the command line is loaded a signal ends the process as the system has it: there is nothing to give back yet, and
a KeyboardInterrupt in the middle of an `import` would be a traceback.
"""

from __future__ import annotations

import atexit
import gc
import signal

from parity_dagster.importing.gc_thresholds import THRESHOLDS


def main() -> None:
    """Run `parity`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # What is loaded stays to the end and then goes as a whole; to look for garbage in it takes a fifth of a short
    # command.
    gc.set_threshold(*THRESHOLDS)
    atexit.register(gc.freeze)
    from parity_dagster.cli import main as parity

    parity()


if __name__ == "__main__":
    main()
