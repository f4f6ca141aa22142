"""Decompression of gzip bodies under a limit (RFC 1952)."""

from __future__ import annotations

import zlib
from typing import Any

from parity_dagster.errors import MalformedAnswer

MAX_MEMBERS = 1024
"""Members of one body; thousands of empty ones would cost time without the body ever growing."""


class Gunzip:
    """Decompresses a gzip stream of one or more members and never inflates beyond a limit.

    Args:
        max_bytes: bytes after decompression that the caller accepts.
    """

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._members = 0
        self._inflate: Any = None

    def feed(self, data: bytes) -> bytes:
        """Decompress the next bytes.

        Args:
            data: compressed bytes as they arrived.

        Returns:
            What they expand to; over all calls at most one byte more than the limit, so that the caller
            can tell that there was more.

        Raises:
            MalformedAnswer: not gzip, damaged, or of more than `MAX_MEMBERS` members.
        """
        out: list[bytes] = []
        while data and self._left >= 0:
            if self._inflate is None:
                self._inflate = zlib.decompressobj(wbits=31)
                self._members += 1
                if self._members > MAX_MEMBERS:
                    raise MalformedAnswer(f"a gzip body of more than {MAX_MEMBERS} members")
            try:
                out.append(self._inflate.decompress(data, self._left + 1))
            except zlib.error as exc:
                raise MalformedAnswer(f"the gzip body is damaged: {exc}") from exc
            self._left -= len(out[-1])
            data = self._inflate.unconsumed_tail
            if self._inflate.eof:
                data, self._inflate = self._inflate.unused_data, None
        return b"".join(out)

    def finish(self) -> None:
        """Say that nothing follows.

        Raises:
            MalformedAnswer: the last member is not complete.
        """
        if self._inflate is not None:
            raise MalformedAnswer("the gzip body is cut short")
