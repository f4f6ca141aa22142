"""The program `parity`, and `python -m parity_dagster`.

While the command line is loaded a signal ends the process as the system has it: there is nothing to give back yet, and
a KeyboardInterrupt in the middle of an `import` would be a traceback.
"""

from __future__ import annotations

import signal


def main() -> None:
    """Run `parity`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from parity_dagster.cli import main as parity

    parity()


if __name__ == "__main__":
    main()
