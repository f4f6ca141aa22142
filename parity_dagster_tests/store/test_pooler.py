"""A pooler that gives several clients one session is refused: what an import holds for a session, nobody would hold."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq.abc import PGconn

from parity_dagster.errors import UnsupportedServer
from parity_dagster.models import Pair
from parity_dagster.sample_network import POST, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.command_line import call, variables
from parity_dagster_tests.imports import assert_equal, query

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
REPORTED = [
    b"server_version",
    b"server_encoding",
    b"client_encoding",
    b"is_superuser",
    b"session_authorization",
    b"DateStyle",
    b"IntervalStyle",
    b"TimeZone",
    b"integer_datetimes",
    b"standard_conforming_strings",
]
"""What a server says of itself to who logs in."""


class TransactionPooler:
    """What PgBouncer does in transaction mode, for clients of one database: they take turns on `sessions` sessions."""

    def __init__(self, url: str, sessions: int) -> None:
        # in the clear, so that its packets can be told apart
        self._target = make_conninfo(url, sslmode="disable", gssencmode="disable")
        self._logins: list[PGconn] = []
        self._number = sessions
        self._free: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.LifoQueue()
        self._greeting = b""
        self.port = 0

    async def start(self) -> asyncio.Server:
        """Open the sessions and listen."""
        for _ in range(self._number):
            self._free.put_nowait(await self._open())
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def stop(self) -> None:
        """Leave whoever is connected, and end the sessions."""
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        for login in self._logins:
            login.finish()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        # libpq logs in, with whatever the server asks for; what follows is ours
        login = psycopg.pq.PGconn.connect(self._target.encode())
        assert login.status == psycopg.pq.ConnStatus.OK, login.error_message
        self._logins.append(login)  # which would end its session with itself
        self._greeting = b"".join(
            [
                _packed((b"R", struct.pack("!i", 0))),
                *(_packed((b"S", name + b"\0" + (login.parameter_status(name) or b"") + b"\0")) for name in REPORTED),
                _packed((b"K", struct.pack("!ii", login.backend_pid, 0))),
                _packed((b"Z", b"I")),
            ]
        )
        return await asyncio.open_connection(sock=socket.socket(fileno=os.dup(login.socket)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length, code = struct.unpack("!ii", await reader.readexactly(8))
                await reader.readexactly(length - 8)
                if code not in (SSL_REQUEST, GSS_REQUEST):
                    break
                writer.write(b"N")
            writer.write(self._greeting)
            while True:
                await self._transaction(await _message(reader), reader, writer)
        writer.close()

    async def _transaction(
        self, first: tuple[bytes, bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if first[0] == b"X":
            raise ConnectionError
        session = await self._free.get()
        asked, sent = 0, first
        try:
            while True:
                session[1].write(_packed(sent))
                asked += sent[0] in (b"Q", b"S")
                while asked:
                    message = await _message(session[0])
                    writer.write(_packed(message))
                    if message[0] == b"Z":
                        asked -= 1
                        if message[1] == b"I":
                            return
                sent = await _message(reader)
        finally:
            self._free.put_nowait(session)


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind = await reader.readexactly(1)
    (length,) = struct.unpack("!i", await reader.readexactly(4))
    return kind, await reader.readexactly(length - 4)


def _packed(message: tuple[bytes, bytes]) -> bytes:
    return message[0] + struct.pack("!i", len(message[1]) + 4) + message[1]


@contextmanager
def pooled(settings: Settings, sessions: int) -> Iterator[Settings]:
    """The same settings, through a pooler."""
    assert settings.database_url is not None
    pooler = TransactionPooler(settings.database_url.get_secret_value(), sessions)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(pooler.start(), loop).result(10)
        given: dict[str, Any] = conninfo_to_dict(settings.database_url.get_secret_value())
        url = f"postgresql://{given.get('user', '')}@127.0.0.1:{pooler.port}/{given['dbname']}"
        yield settings.model_copy(update={"database_url": type(settings.database_url)(url)})
    finally:
        asyncio.run_coroutine_threadsafe(pooler.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize("sessions", [1, 4])
def test_a_pooler_in_transaction_mode_is_refused_before_anything_is_claimed(
    settings: Settings, network: Running, sessions: int
) -> None:
    did = network.network.add_account({POST: 3})
    here = settings.model_copy(update={"plc_url": network.plc_url})
    with pooled(here, sessions) as through:
        with psycopg.connect(through.database_url.get_secret_value()) as conn:  # type: ignore[union-attr]
            assert conn.execute("SELECT 1").fetchone() == (1,), "it is one that works"
        with ImportService(through, report=False) as service, pytest.raises(UnsupportedServer, match="session mode"):
            service.import_pairs([Pair(did, POST)])
        said = call("import", did, "--collection", POST, env=variables(through))
        assert said.exit_code == 1
        assert "transaction mode" in said.output
    assert query(settings, "SELECT count(*) FROM parity_import_states") == [(0,)]
    with ImportService(here, report=False) as service:
        assert service.import_user_collection(did, POST).completed
    assert_equal(settings, network.network, did, POST)
