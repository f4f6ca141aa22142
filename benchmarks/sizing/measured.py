"""What is not simulated: a small import both ways, whose requests and bytes are counted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.environment import Database, Network, database, network
from parity_dagster.models import Pair
from parity_dagster.sample_network import LIKE, POST
from parity_dagster.service import ImportService
from parity_dagster.settings import load_settings

SCALE = 0.1
"""Of the shape `narrow`: 500 accounts of 20 posts and 20 likes."""


@dataclass(frozen=True)
class Measured:
    """A small import.

    Attributes:
        by_pages, by_repositories: requests of an account to its host.
        record_bytes: of a row of the records' table, indexes included.
        pair_bytes: of everything else, per pair.
    """

    accounts: int
    pairs: int
    records: int
    by_pages: float
    by_repositories: float
    record_bytes: float
    pair_bytes: float


def measure(scale: float = SCALE) -> Measured:
    """Import accounts of the shape `narrow` by pages and by repositories, each into an empty database."""
    with database() as db, network("narrow", scale) as served:
        requests = {source: _import(db, served, source) for source in ("list", "repo")}
        db.execute("VACUUM")
        records = int(db.execute("SELECT count(*) FROM atproto_records"))
        held = int(db.execute("SELECT pg_total_relation_size('atproto_records')"))
        beside = int(
            db.execute(
                "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE relnamespace = 'public'::regnamespace"
                " AND relkind = 'r' AND relname <> 'atproto_records' AND reltuples > 1"
            )
        )
        accounts = len(served.dids)
        return Measured(
            accounts,
            2 * accounts,
            records,
            requests["list"] / accounts,
            requests["repo"] / accounts,
            held / records,
            beside / (2 * accounts),
        )


def _import(db: Database, served: Network, source: Literal["list", "repo"]) -> int:
    db.reset()
    before, _ = served.count_requests()
    settings = load_settings(
        database_url=db.url,
        home=Path(db.home),
        plc_url=served.plc_url,
        allow_private_hosts=True,
        page_delay=0,
        collections=(POST, LIKE),
        source=source,
    )
    with ImportService(settings, report=False) as service:
        failed = [
            result.error
            for result in service.import_pairs(Pair(did, nsid) for did in served.dids for nsid in (POST, LIKE))
            if not result.is_success
        ]
    if failed:
        raise RuntimeError(f"{len(failed)} pairs failed, the first one: {failed[0]}")
    return served.count_requests()[0] - before
