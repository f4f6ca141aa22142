"""How a command ends: its exit code, and one line on stderr instead of a traceback.

What lives here: the click group that turns every exception into that. What must not: any command.

    0    everything that was asked for succeeded
    1    something failed: an import, the database, a network
    2    wrong usage: an argument, an option, a setting or a file
    130  Ctrl-C;  143  SIGTERM;  141  the reader of the output went away (`parity import-status | head`)
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from parity_dagster.cli.output import one_line
from parity_dagster.errors import InvalidIdentifier, ParityError, SettingsError

SUCCEEDED = 0
FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
READER_GONE = 141
TERMINATED = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; it unwinds what Ctrl-C unwinds."""


class ParityGroup(click.Group):
    """A group of commands none of which ends with a traceback."""

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
            code = super().invoke(ctx)
            sys.stdout.flush()
        except (click.exceptions.Exit, SystemExit):
            raise
        except BrokenPipeError:
            _let_go_of_stdout()
            ctx.exit(READER_GONE)
        except Terminated:
            _say("stopped by SIGTERM; `parity import --resume` goes on from the last committed page")
            ctx.exit(TERMINATED)
        except (KeyboardInterrupt, click.Abort):
            _say("interrupted; `parity import --resume` goes on from the last committed page")
            ctx.exit(INTERRUPTED)
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
            _say(f"{type(exc).__name__}: {exc} (unexpected; PARITY_DEBUG=1 shows where)")
            ctx.exit(FAILED)
        ctx.exit(code if isinstance(code, int) else SUCCEEDED)


def usage_line(exc: click.UsageError) -> str:
    """Put what click reports on one line, with the way to the help.

    Args:
        exc: the usage error.

    Returns:
        The sentence, such as `No such option: --fil. Did you mean --file? See parity import --help.`
    """
    sentence = exc.format_message().strip()
    path = exc.ctx.command_path if exc.ctx else "parity"
    return f"{sentence}{'' if sentence.endswith(('.', '?', '!')) else '.'} See `{path} --help`."


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM unwind the stack like Ctrl-C does, so that what is under way is given back cleanly."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def debugging() -> bool:
    """Tell whether the user asked for tracebacks (`PARITY_DEBUG=1`)."""
    return os.environ.get("PARITY_DEBUG", "").lower() not in ("", "0", "false", "no")


def _say(message: str) -> None:
    if debugging() and sys.exc_info()[0] is not None:
        traceback.print_exc()
    try:
        click.echo(f"error: {one_line(message)}", err=True)
    except BrokenPipeError:
        return


def _let_go_of_stdout() -> None:
    # otherwise the interpreter complains when it flushes stdout for the last time
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # replaced by something that is no file
        return
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, descriptor)
    os.close(devnull)
