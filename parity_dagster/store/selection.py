"""Rows of the state table that are chosen by what is known of them: accounts, collections, status, error, host."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql

from parity_dagster.models import ImportStatus, Pair
from parity_dagster.store.states import LIVE_IMPORTERS


class Selection(NamedTuple):
    """Which pairs are meant; what is None does not narrow them."""

    dids: Collection[str] | None = None
    collections: Collection[str] | None = None
    status: ImportStatus | None = None
    errors: Collection[str] | None = None
    """Codes of the errors that they failed with."""
    hosts: Collection[str] | None = None
    """PDSes: origins (`https://pds.example.com`), or host names, with a port if need be."""

    def values(self) -> dict[str, Any]:
        """What `CONDITION` asks for."""
        return {
            "dids": None if self.dids is None else list(self.dids),
            "collections": None if self.collections is None else list(self.collections),
            "status": self.status and str(self.status),
            "errors": None if self.errors is None else list(self.errors),
            "origins": None if self.hosts is None else [origin for host in self.hosts for origin in _origins(host)],
        }


def _origins(host: str) -> list[str]:
    bare = host.strip().rstrip("/").lower()
    return [bare] if "://" in bare else [f"https://{bare}", f"http://{bare}"]


CONDITION: LiteralString = (
    "(%(dids)s::text[] IS NULL OR s.did = ANY(%(dids)s))"
    " AND (%(collections)s::text[] IS NULL OR s.collection = ANY(%(collections)s))"
    " AND (%(status)s::text IS NULL OR s.status = %(status)s)"
    " AND (%(errors)s::text[] IS NULL OR (s.status = 'failed' AND coalesce(s.error_code, 'unknown') = ANY(%(errors)s)))"
    " AND (%(origins)s::text[] IS NULL OR coalesce(s.pds, (SELECT i.pds FROM parity_identities i WHERE i.did = s.did))"
    " = ANY(%(origins)s))"
)


def find_pairs(connection: psycopg.Connection, table: str, selection: Selection) -> list[Pair]:
    """The selected pairs that no live importer holds, those that were touched longest ago first."""
    rows = connection.execute(
        sql.SQL(
            f"SELECT s.did, s.collection FROM {{table}} s WHERE {CONDITION}"
            " AND (s.importer_id IS NULL OR s.importer_id NOT IN ({live})) ORDER BY s.updated_at, s.id"
        ).format(table=sql.Identifier(table), live=LIVE_IMPORTERS),
        selection.values(),
    ).fetchall()
    return [Pair(*row) for row in rows]
