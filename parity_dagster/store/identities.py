"""The cache of which PDS an account lives on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from psycopg import AsyncConnection

MAX_AGE = "24 hours"
"""How long a resolution is believed; a failure on the host makes us ask again at once."""


class CachedIdentity(NamedTuple):
    """A resolved account."""

    did: str
    handle: str | None
    pds: str


async def find_identities(conn: AsyncConnection, dids: Sequence[str]) -> dict[str, CachedIdentity]:
    """The accounts that were resolved within `MAX_AGE`, by DID."""
    cursor = await conn.execute(
        "SELECT did, handle, pds FROM parity_identities WHERE did = ANY(%s)"
        f" AND resolved_at > now() - interval '{MAX_AGE}'",
        (list(dids),),
    )
    return {row[0]: CachedIdentity(*row) for row in await cursor.fetchall()}


async def save_identities(conn: AsyncConnection, identities: Sequence[CachedIdentity]) -> None:
    """Remember where accounts live; each DID once."""
    await conn.execute(
        "INSERT INTO parity_identities (did, handle, pds)"
        " SELECT * FROM unnest(%s::text[], %s::text[], %s::text[]) ORDER BY 1"
        " ON CONFLICT (did) DO UPDATE SET handle = EXCLUDED.handle, pds = EXCLUDED.pds, resolved_at = now()",
        ([i.did for i in identities], [i.handle for i in identities], [i.pds for i in identities]),
    )
