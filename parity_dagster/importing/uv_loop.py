"""uvloop without libuv's own threads, which look names up: a forked process joins them at its end, and has none."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import uvloop

from parity_dagster.threads import DaemonThreads


class UvLoop(uvloop.Loop):
    """An event loop whose names are looked up on threads of ours; it asks for each address that it connects to."""

    def __init__(self) -> None:
        self._names = DaemonThreads(16, "parity-names")

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        """See `asyncio.loop.getaddrinfo`; numbers are addresses already and wait for no thread."""
        look_up = partial(socket.getaddrinfo, host, port, family, type, proto)
        try:
            return look_up(flags | socket.AI_NUMERICHOST)
        except socket.gaierror:
            return await self.run_in_executor(self._names, partial(look_up, flags))
