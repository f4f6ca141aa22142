"""Addresses of host names, from the system's resolver.

What lives here: the look-up. What must not: judging the addresses; `http` checks each one as it connects.
"""

from __future__ import annotations

import asyncio
import functools
import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from parity_dagster.threads import DaemonThreads


class SystemResolver(AbstractResolver):
    """getaddrinfo in threads of its own: names that time out do not occupy the event loop's few threads."""

    def __init__(self) -> None:
        self._threads = DaemonThreads(32, "parity-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Look up every address of `host` (aiohttp's `AbstractResolver` says what comes back)."""
        lookup = functools.partial(
            socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        infos = await asyncio.get_running_loop().run_in_executor(self._threads, lookup)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=str(addr[0]), port=port, family=fam, proto=proto, flags=numeric)
            for fam, _, proto, _, addr in infos
        ]

    async def close(self) -> None:
        """Drop look-ups that wait; those under way end by themselves."""
        self._threads.shutdown()
