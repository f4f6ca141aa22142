"""Structured logs: one JSON object per line, with the fields that a search needs."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from parity_dagster.text import escaped

FIELDS = (
    "did", "collection", "pds", "run_id", "event", "error_code", "pages",
    "records_synced", "records_skipped", "records_failed",
)  # fmt: skip
"""Attributes of a log record that become fields of the JSON object."""


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON, in the words of OpenTelemetry's log data model.

    `timestamp` (RFC 3339, UTC), `severity_text`, `body`, `logger`, the fields of `FIELDS` that the record has, and
    `exception.type`, `exception.message`, `exception.stacktrace`. Non-ASCII and control characters are escaped.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format a record.

        Args:
            record: of any logger.

        Returns:
            One line.
        """
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "severity_text": record.levelname,
            "body": record.getMessage(),
            "logger": record.name,
        }
        line.update((name, value) for name in FIELDS if (value := getattr(record, name, None)) is not None)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["exception.type"] = type(error).__name__
            line["exception.message"] = str(error)
            line["exception.stacktrace"] = "".join(traceback.format_exception(error))
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """A log record as one line for people, with control characters escaped."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Format a record.

        Args:
            record: of any logger.

        Returns:
            One line, or several if there is a traceback.
        """
        first, *trace = super().format(record).split("\nTraceback", 1)
        return escaped(first) + "".join(f"\nTraceback{part}" for part in trace)


def configure_logging(
    style: Literal["text", "json"] = "json", *, level: int = logging.INFO, stream: TextIO | None = None
) -> logging.Handler:
    """Let the logs of this package, and warnings of all others, go to a stream; calling it again changes the style.

    Args:
        style: `json` or `text`.
        level: of this package's loggers.
        stream: stderr if not given.

    Returns:
        The handler that was put on the root logger.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    handler.set_name("parity")
    root = logging.getLogger()
    for old in [each for each in root.handlers if each.get_name() == "parity"]:
        root.removeHandler(old)
    root.addHandler(handler)
    logging.getLogger("parity_dagster").setLevel(level)
    return handler
