"""The view `accounts`: one row per account that is imported or wanted, to be joined with the typed views.

It holds nothing: what an account is called and where it lives comes from `parity_identities`, everything else from the
rows of its pairs, which it reads once, and for one account by their index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from parity_dagster.errors import GONE
from parity_dagster.store.freshness import FRESH_AT
from parity_dagster.store.typed.view import quoted

COLUMNS = {
    "did": ("text", "Account"),
    "handle": ("text", "Handle that its DID document claims; null if it claims none, or was not looked up yet"),
    "handle_verified": ("boolean", "Whether that handle was looked up and led to this account"),
    "pds": ("text", "Host of its repository"),
    "status": ("text", "active, or why it was not to be had when it was last asked for; null if it never was"),
    "last_seen_at": ("timestamptz", "When one of its complete copies was last read, or confirmed by its host"),
    "records": ("bigint", "Records stored by the last walk of each of its pairs"),
    "pairs": ("bigint", "Collections of it that are imported or wanted"),
    "pairs_completed": ("bigint", "Those that are complete"),
    "pairs_failed": ("bigint", "Those whose last attempt failed"),
    "stalest_at": ("timestamptz", "When the stalest of its complete copies was read or confirmed"),
}
COMMENT = "Accounts, one row each, over their pairs and identities."

_GONE = ", ".join(f"'{code}'" for code in sorted(GONE))
_SELECT = f"""SELECT s.did, i.handle, i.handle_verified_at IS NOT NULL AS handle_verified,
       coalesce(i.pds, s.pds) AS pds,
       CASE WHEN s.gone_at >= coalesce(s.last_seen_at, '-infinity') THEN s.gone
            WHEN s.last_seen_at IS NOT NULL THEN 'active' END AS status,
       s.last_seen_at, s.records, s.pairs, s.pairs_completed, s.pairs_failed, s.stalest_at
  FROM (SELECT s.did, max(s.pds) AS pds, max({FRESH_AT}) AS last_seen_at,
               max(s.updated_at) FILTER (WHERE s.error_code IN ({_GONE})) AS gone_at,
               (array_agg(s.error_code ORDER BY s.updated_at DESC)
                FILTER (WHERE s.error_code IN ({_GONE})))[1] AS gone,
               sum(s.records_synced)::bigint AS records, count(*) AS pairs,
               count(*) FILTER (WHERE s.status = 'completed') AS pairs_completed,
               count(*) FILTER (WHERE s.status = 'failed') AS pairs_failed,
               min({FRESH_AT}) AS stalest_at
          FROM {{table}} s GROUP BY s.did) s
  LEFT JOIN parity_identities i ON i.did = s.did"""


@dataclass(frozen=True, slots=True)
class AccountsView:
    """The view over a state table."""

    state_table: str

    @property
    def name(self) -> str:
        """`accounts`, for the usual state table; projects that share a database have one each."""
        return "accounts" if self.state_table == "parity_import_states" else f"{self.state_table}_accounts"

    def select(self) -> str:
        """The view's query."""
        return _SELECT.format(table=f'"{self.state_table}"')

    def statements(self) -> Iterator[str]:
        """What makes the view, with its comments."""
        yield f"CREATE OR REPLACE VIEW {self.name} AS\n{self.select()}"
        for column, (_, comment) in COLUMNS.items():
            yield f"COMMENT ON COLUMN {self.name}.{column} IS {quoted(comment)}"
        yield f"COMMENT ON VIEW {self.name} IS {quoted(f'{COMMENT} {self.mark()}')}"

    def mark(self) -> str:
        """What the view's comment ends with, so that it is known to be ours, and of which definition."""
        return f"[parity_dagster {self.version()}]"

    def version(self) -> str:
        """A digest of all that makes the view, whatever its table."""
        return hashlib.sha256(repr((COMMENT, _SELECT, COLUMNS)).encode()).hexdigest()[:12]


class AccountsSummary(NamedTuple):
    """What the view shows, in numbers."""

    rows: int
    with_handle: int
    verified: int
    statuses: list[tuple[str | None, int]]
    stalest: list[dict[str, Any]]
    """Accounts whose stalest copy is the oldest."""


def summarize_accounts(conn: psycopg.Connection[Any], view: AccountsView, limit: int = 5) -> AccountsSummary:
    """Count what the view shows; reads it once for the numbers and once for the stalest."""
    name = sql.Identifier(view.name)
    rows = conn.execute(
        sql.SQL(
            "SELECT status, count(*), count(handle), count(*) FILTER (WHERE handle_verified) FROM {} GROUP BY status"
            " ORDER BY count(*) DESC, status"
        ).format(name)
    ).fetchall()
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            sql.SQL("SELECT * FROM {} WHERE stalest_at IS NOT NULL ORDER BY stalest_at, did LIMIT {}").format(
                name, sql.Literal(limit)
            )
        )
        stalest = cursor.fetchall()
    return AccountsSummary(
        sum(row[1] for row in rows),
        sum(row[2] for row in rows),
        sum(row[3] for row in rows),
        [(row[0], row[1]) for row in rows],
        stalest,
    )
