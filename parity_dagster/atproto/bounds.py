"""How an answer leaves the bounds of bytes and time that it was given: classes that load neither httpx nor aiohttp."""

from __future__ import annotations

from parity_dagster.errors import HostUnreachable, MalformedAnswer, ParityError


class BodyTooLarge(MalformedAnswer):
    """The body is larger than what was asked for."""


class TooSlow(HostUnreachable):
    """The body of a download comes, but too slowly; the host is there."""


class FileFailed(ParityError):
    """The file that a body is written to does not take it, as on a full disk; the host has no part in it."""
