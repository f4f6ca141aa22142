"""How a command ends: its exit code, and one line on stderr instead of a traceback.

0    everything that was asked for succeeded
1    something failed: an import, the database, a network
2    wrong usage: an argument, an option, a setting or a file
130  Ctrl-C;  143  SIGTERM;  129  the terminal went away
141  the reader of the output went away (`parity import-status | head`)
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import click

from parity_dagster.errors import InvalidIdentifier, ParityError, SettingsError
from parity_dagster.text import one_line

SUCCEEDED = 0
FAILED = 1
WRONG_USAGE = 2
READER_GONE = 141

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GOES_ON = "`parity import --resume` goes on from the last committed page"
"""Of a command that imports."""
_WHEN_STOPPED = "parity_dagster.when_stopped"


class Stopped(KeyboardInterrupt):
    """A signal arrived; it unwinds what Ctrl-C unwinds."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)


class ParityGroup(click.Group):
    """A group of commands none of which ends with a traceback."""

    signals_afterwards: signal.Handlers | None = None
    """What signals do when the command has ended; None for what they did before. A process that is about to end has
    only the embedded server left to stop, and ignores them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order in which a newcomer needs them."""
        return list(self.commands)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the options before the command's name; a wrong one is one line on stderr."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as exc:
            _say(usage_line(exc))
            raise SystemExit(WRONG_USAGE) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and leave with its exit code."""
        try:
            with signals_interrupt(self.signals_afterwards):
                code = super().invoke(ctx)
                sys.stdout.flush()
        except (click.exceptions.Exit, SystemExit):
            raise
        except BrokenPipeError:
            let_go_of_output()
            ctx.exit(READER_GONE)
        except (KeyboardInterrupt, click.Abort) as exc:
            number = exc.number if isinstance(exc, Stopped) else signal.SIGINT
            what_now = ctx.meta.get(_WHEN_STOPPED)
            stopped = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
            _say(f"{stopped}; {what_now}" if what_now else stopped)
            ctx.exit(128 + number)
        except click.UsageError as exc:
            _say(usage_line(exc))
            ctx.exit(WRONG_USAGE)
        except click.ClickException as exc:
            _say(exc.format_message())
            ctx.exit(exc.exit_code)
        except (SettingsError, InvalidIdentifier) as exc:
            _say(str(exc))
            ctx.exit(WRONG_USAGE)
        except ParityError as exc:
            _say(str(exc))
            ctx.exit(FAILED)
        except Exception as exc:  # noqa: BLE001 - the last resort: whatever it is, a user gets one line
            _say(_last_words(exc))
            ctx.exit(FAILED)
        ctx.exit(code if isinstance(code, int) else SUCCEEDED)


def _last_words(exc: Exception) -> str:
    import psycopg

    from parity_dagster.store.postgres_errors import PASSING, cure_for, first_line

    if isinstance(exc, (*PASSING, psycopg.errors.InsufficientPrivilege)):
        cure = cure_for(exc, grants="a role may do it that has the grants of docs/postgresql.md")
        return f"PostgreSQL failed: {first_line(exc)}; {cure}"
    return f"{type(exc).__name__}: {exc} (unexpected; PARITY_DEBUG=1 shows where)"


def say_when_stopped(what_now: str) -> None:
    """Have a signal to the command that runs answered with this, too."""
    click.get_current_context().meta[_WHEN_STOPPED] = what_now


def usage_line(exc: click.UsageError) -> str:
    """Put what click reports on one line, with the way to the help.

    Such as `No such option: --fil. Did you mean --file? See parity import --help.`
    """
    sentence = exc.format_message().strip()
    path = exc.ctx.command_path if exc.ctx else "parity"
    return f"{sentence}{'' if sentence.endswith(('.', '?', '!')) else '.'} See `{path} --help`."


@contextmanager
def signals_interrupt(afterwards: signal.Handlers | None = None) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP unwind the stack, so that what is under way is given back cleanly.

    What is ignored (`nohup`, the background of a shell) stays ignored.

    Args:
        afterwards: what they do at the end; None for what they did before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hook = sys.unraisablehook

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    def raise_again(unraisable: sys.UnraisableHookArgs) -> None:
        # A finalizer, or the callback of a weak reference (each `import` has some), swallows what is raised in it.
        lost = unraisable.exc_value
        if isinstance(lost, Stopped):
            signal.signal(signal.SIGALRM, lambda _, frame: stop(lost.number, frame))
            signal.setitimer(signal.ITIMER_REAL, 0.001)
        else:
            hook(unraisable)

    sys.unraisablehook = raise_again
    before = {number: signal.signal(number, stop) for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler if afterwards is None else afterwards)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook

    try:
        yield
    finally:
        try:
            restore()
        finally:
            restore()  # a second signal came while the first was still restoring


def debugging() -> bool:
    """Whether the user asked for tracebacks (`PARITY_DEBUG=1`)."""
    return os.environ.get("PARITY_DEBUG", "").lower() not in ("", "0", "false", "no")


def _say(message: str) -> None:
    if debugging() and sys.exc_info()[0] is not None:
        traceback.print_exc()
    try:
        click.echo(f"error: {one_line(message)}", err=True)
    except OSError:  # nobody reads it any more, or its terminal is gone
        let_go_of_output()


def let_go_of_output(*streams: TextIO) -> None:
    """Forget what standard output and error do not take, lest the interpreter complain when it flushes them.

    Args:
        streams: one of them; both if none is given.
    """
    for stream in streams or (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError), Path(os.devnull).open("wb") as devnull:  # unless it is no file
                os.dup2(devnull.fileno(), stream.fileno())
