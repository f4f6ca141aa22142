"""`parity verify`: is the table what the authors have signed?"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

import click

from parity_dagster.cli.accounts import checked_collections, known_did
from parity_dagster.cli.exits import FAILED, SUCCEEDED, say_when_stopped
from parity_dagster.cli.output import Column, is_watched, plural, watching, write_json, write_table

if TYPE_CHECKING:
    from parity_dagster.models import Verification

_COUNTS = ("equal", "missing", "different", "surplus", "newer", "changed", "failed", "unverifiable")
_COLUMNS = (
    Column("did", 32),
    Column("collection", 22),
    Column("outcome", 12),
    Column("equal", 9, right=True),
    Column("missing", 7, right=True, spare=1),
    Column("different", 9, right=True, spare=1),
    Column("surplus", 7, right=True, spare=1),
    Column("newer", 5, right=True, spare=3),
    Column("changed", 7, right=True, spare=3),
    Column("failed", 6, right=True, spare=2),
    Column("unverifiable", 12, right=True, spare=2),
    Column("remarks", 7, wraps=True),
)


class _Totals:
    """Sums over the results that went by."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.has_fault = False

    def watch(self, results: Iterable[Verification]) -> Iterator[Verification]:
        for result in results:
            self.outcomes[result.outcome] += 1
            self.has_fault |= result.is_fault
            for name in _COUNTS:
                self.counts[name] += getattr(result, name)
            yield result

    def line(self, *, offline: bool) -> str:
        outcomes = ", ".join(f"{count:,} {word}" for word, count in self.outcomes.most_common())
        proven = "have the CID of their value" if offline else "are what was signed"
        wrong = ", ".join(
            f"{self.counts[name]:,} {name}" for name in ("missing", "different", "surplus") if self.counts[name]
        )
        return (
            f"{plural(self.outcomes.total(), 'import')}: {outcomes}; {plural(self.counts['equal'], 'record')} {proven}"
            f"{', ' if wrong else ''}{wrong}."
        )


@click.command(short_help="Compare the table with the repositories that the accounts have signed.")
@click.argument("accounts", nargs=-1, metavar="[ACCOUNT]...")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="That many accounts, drawn by chance.")
@click.option("--all", "is_all", is_flag=True, help="All accounts that were imported.")
@click.option("--collection", "collections", multiple=True, metavar="NSID", help="Only this one; may be repeated.")
@click.option("--offline", is_flag=True, help="Ask no server: recompute each record's CID from its value.")
@watching
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, one object per account and collection.")
def verify(
    accounts: tuple[str, ...],
    sample: int | None,
    is_all: bool,
    collections: tuple[str, ...],
    offline: bool,
    progress: bool | None,
    as_json: bool,
) -> int:
    """Compare imported records with the repositories that their authors have signed, one by one.

    Each account's repository is read from its host in one request, verified with the key that the account's
    DID document names now, and compared with the table. Nothing is written. ACCOUNT is a DID, or a handle
    that was imported before.

    \b
    equal         in the table exactly as it was signed
    missing       signed, and not in the table, or hidden in it
    different     in the table with another cid or another value
    surplus       in the table, and not in the repository
    newer         a live event came after the repository's revision: no fault
    changed       the account has written since the import; --refresh reads it
    failed        could not be stored, and is kept: `parity failed-records`
    unverifiable  cannot be compared; with --offline, what holds floats or old
                  blobs

    With --offline a row that was changed is found, but not one that is missing or surplus.

    \b
    Examples:
      parity verify did:plc:z72i7hdynmk6r22z27h6tvur
      parity verify alice.bsky.social --collection app.bsky.feed.post
      parity verify --sample 20 --json
      parity verify --all --offline --progress

    \b
    Variables: PARITY_DATABASE_URL, PARITY_HOME, PARITY_STATE_TABLE,
      PARITY_MAPPERS, PARITY_MAX_REPO_BYTES.
    Exit code: 0 if nothing is wrong; 1 if a record is missing, different or
      surplus, or an account could not be verified: it was never imported, or not
      to its end, its host gives no repository or a wrong one; 2 on wrong usage.
    """
    say_when_stopped("nothing was changed; start it again")
    if bool(accounts) + (sample is not None) + is_all != 1:
        raise click.UsageError("Give one of accounts, --sample and --all.")

    import random

    from parity_dagster.cli.progress import RowsProgress
    from parity_dagster.service import ImportService
    from parity_dagster.settings import load_settings
    from parity_dagster.store.consistency import ConsistencyQueries
    from parity_dagster.store.database import connect

    settings = load_settings()
    nsids = checked_collections(collections) or None
    dids: list[str] | None = None
    if not is_all:
        with closing(connect(settings, autocommit=True)) as conn:
            if sample is None:
                dids = [known_did(conn, account, settings) for account in accounts]
            else:
                seed = random.SystemRandom().randrange(1, 2**31)
                dids = ConsistencyQueries(conn, settings.state_table).random_accounts(sample, seed, nsids)
    totals = _Totals()
    with (
        ImportService(settings, report=False) as service,
        RowsProgress("verified", "record") if is_watched(progress) else nullcontext() as watcher,
    ):
        results = service.verify(dids, nsids, offline=offline, on_progress=watcher.advance if watcher else None)
        watched = totals.watch(results)
        if as_json:
            write_json(_object(result) for result in watched)
        else:
            write_table(_COLUMNS, (_cells(result) for result in watched))
    if totals.outcomes:
        click.echo(totals.line(offline=offline), err=as_json)
    else:
        click.echo("Nothing that was imported to its end is there to verify.", err=True)
    if totals.counts["missing"] or totals.counts["different"] or totals.counts["surplus"]:
        click.echo("`parity import ACCOUNT --reread` corrects whatever differs.", err=as_json)
    is_nothing = totals.outcomes.keys() == {"incomplete"}
    return FAILED if totals.has_fault or is_nothing else SUCCEEDED


def _object(result: Verification) -> dict[str, Any]:
    given = dataclasses.asdict(result)
    return {"did": given.pop("did"), "collection": given.pop("collection"), "outcome": result.outcome, **given}


def _cells(result: Verification) -> tuple[str, ...]:
    remarks = f"{result.error_code}: {result.error}" if result.error else "; ".join(result.examples)
    return (
        result.did,
        result.collection,
        result.outcome,
        *(f"{getattr(result, name):,}" for name in _COUNTS),
        remarks,
    )
