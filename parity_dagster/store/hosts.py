"""Which importers of the database read which hosts."""

from __future__ import annotations

from typing import NamedTuple

from psycopg import AsyncConnection, sql

from parity_dagster.store.states import LIVE_IMPORTERS


class Readers(NamedTuple):
    """Services with living importers that read one host, from the view of one of them."""

    host: str
    before: int
    """Those that come before it."""
    every: int
    seconds: float
    """The time, on a clock that is the same for all."""


async def enter_host(conn: AsyncConnection, importer_id: int, service: str, host: str) -> None:
    """Note that an importer reads a host, with the limits of a service; the note is void when the importer is dead."""
    await conn.execute(
        "INSERT INTO parity_host_importers (host, importer_id, service) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (host, importer_id, service),
    )


async def leave_hosts(conn: AsyncConnection, importer_id: int, hosts: list[str]) -> None:
    """Take notes back."""
    await conn.execute(
        "DELETE FROM parity_host_importers WHERE importer_id = %s AND host = ANY(%s)", (importer_id, hosts)
    )


async def find_readers(conn: AsyncConnection, service: str, host: str | None = None) -> list[Readers]:
    """How many services read each host that one of them reads, or a single one."""
    cursor = await conn.execute(
        sql.SQL(
            "SELECT host, count(DISTINCT service) FILTER (WHERE service < %(own)s), count(DISTINCT service),"
            " extract(epoch FROM clock_timestamp())::float8 FROM parity_host_importers"
            " WHERE importer_id IN ({live}) AND (%(host)s::text IS NULL OR host = %(host)s)"
            " GROUP BY host HAVING bool_or(service = %(own)s)"
        ).format(live=LIVE_IMPORTERS),
        {"own": service, "host": host},
    )
    return [Readers(*row) for row in await cursor.fetchall()]
