"""The audit: some accounts are read again from their PDSes and compared with the table, record by record.

Where a PDS gives it, that is the signed repository, which proves what is equal; else the lists.

A repository whose revision is still the one noted before the import must be equal to the table. In one that has moved
on, a record may be newer than the import, or changed or deleted since: such differences are counted as `changed`.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from parity_dagster.atproto.network import Network, open_network
from parity_dagster.atproto.repo import USUAL_BYTES, RepoClient
from parity_dagster.atproto.xrpc import XrpcError
from parity_dagster.errors import GONE, ArchiveUnavailable, DatabaseError, ParityError
from parity_dagster.identifiers import is_valid_tid
from parity_dagster.importing.loop import BackgroundLoop
from parity_dagster.importing.mappers import Mappers
from parity_dagster.importing.pair_task import tid_of
from parity_dagster.importing.retry_policy import unexpected
from parity_dagster.models import ImportState, ImportStatus
from parity_dagster.settings import Settings
from parity_dagster.store.consistency import ConsistencyQueries, differing, failed_keys, stored_keys
from parity_dagster.store.database import connect
from parity_dagster.store.listing import find_states
from parity_dagster.threads import beside_the_loop

if TYPE_CHECKING:
    from parity_dagster.importing.archives import Archive
    from parity_dagster.importing.verify import SignedRepositories
    from parity_dagster.models import Verification

PAIR_SECONDS = 300.0
"""Seconds that reading one pair again may take; a host that drips, or keeps asking to wait, is not waited for."""
EXAMPLES = 5
"""Differing records named per pair."""


@dataclass(slots=True)
class PairAudit:
    """One pair, read again."""

    did: str
    collection: str
    pds: str | None
    compared: int = 0
    """Records that the PDS showed and the table should hold."""
    missing: int = 0
    """Records that should be in the table and are not."""
    different: int = 0
    """Records whose cid or value is another."""
    surplus: int = 0
    """Rows that the PDS does not show."""
    changed: int = 0
    """Differences that came after the import."""
    unverifiable: int = 0
    """Rows that can be compared with nothing, see `Verification`; not among those compared."""
    is_whole: bool = True
    """Whether the list was read to its end."""
    is_proven: bool = False
    """Whether it was compared with the signed repository, and not with a list."""
    error: str | None = None
    """Why it could not be read."""
    is_gone: bool = False
    """Whether that is because its account is deactivated, deleted or the like."""
    examples: list[str] = field(default_factory=list)
    """`missing RKEY` and the like."""

    @property
    def is_equal(self) -> bool:
        """Whether nothing is wrong, as far as it could be read."""
        return not (self.missing or self.different or self.surplus)

    @property
    def outcome(self) -> str:
        """One word: `proven`, `unverifiable` (proven but for some rows), `equal`, `different`, or `unread`."""
        if not self.is_equal:
            return "different"
        if self.error:
            return "unread"
        return "unverifiable" if self.unverifiable else "proven" if self.is_proven else "equal"


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Everything that was read again."""

    pairs: list[PairAudit]

    @property
    def compared(self) -> int:
        """Records compared."""
        return sum(pair.compared for pair in self.pairs)

    @property
    def proven(self) -> int:
        """Those that are what their authors have signed."""
        return sum(pair.compared - pair.missing - pair.different for pair in self.pairs if pair.is_proven)

    @property
    def lost(self) -> int:
        """Records missing or different."""
        return sum(pair.missing + pair.different for pair in self.pairs)

    @property
    def loss_rate(self) -> float:
        """Share of the compared records that are missing or different."""
        return self.lost / self.compared if self.compared else 0.0


def audit(
    settings: Settings,
    *,
    accounts: int = 5,
    seed: int = 0,
    max_pages: int = 100,
    seconds: float = PAIR_SECONDS,
) -> AuditReport:
    """Read accounts again and compare them with the table; nothing is written.

    Args:
        max_pages: pages read of a pair; what lies beyond is not compared. A repository may have as many bytes as so
            many pages.
        seconds: that reading one pair may take; what was not reached by then is not compared.

    Raises:
        DatabaseError: there is no database to compare with.
    """
    with closing(connect(settings)) as conn:
        dids = ConsistencyQueries(conn, settings.state_table).random_accounts(accounts, seed)
        states: dict[str, list[ImportState]] = {did: [] for did in dids}
        for state in find_states(conn, settings.state_table, dids=dids, statuses=[ImportStatus.COMPLETED]):
            states[state.did].append(state)
        conn.commit()
        conn.autocommit = True  # no transaction stays open while the network is read
        auditor = _Auditor(settings, conn, max_pages, seconds)
        with closing(BackgroundLoop(lambda: auditor, name="parity-audit")) as loop:
            return AuditReport(loop.call(lambda auditor: auditor.audit(states)))


def _fail(found: PairAudit, exc: Exception) -> None:
    """Write down one account's failure, whatever it is: the others are audited all the same.

    Raises what the database raised, which would fail for the others too.
    """
    if isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError | DatabaseError):
        raise exc
    found.error = str(exc if isinstance(exc, ParityError | XrpcError) else unexpected(exc))
    found.is_gone = isinstance(exc, ParityError) and exc.is_gone


class _Auditor:
    def __init__(self, settings: Settings, conn: psycopg.Connection[Any], max_pages: int, seconds: float) -> None:
        self._settings = settings
        self._conn = conn
        self._max_pages = max_pages
        self._seconds = seconds
        self._mappers = Mappers(settings.mappers)

    async def audit(self, accounts: dict[str, list[ImportState]]) -> list[PairAudit]:
        # Loaded when it is needed: what reads and verifies archives takes its time.
        from parity_dagster.importing.verify import SignedRepositories

        network = open_network(self._settings)
        max_bytes = min(self._settings.max_repo_bytes, self._max_pages * USUAL_BYTES)
        repositories = SignedRepositories(self._settings, max_bytes)
        audits: list[PairAudit] = []
        try:
            for did, states in accounts.items():
                audits += await self._account(did, states, network, repositories)
                await repositories.forget(did)
            return audits
        finally:
            repositories.close()
            await network.aclose()

    async def _account(
        self, did: str, states: list[ImportState], network: Network, repositories: SignedRepositories
    ) -> list[PairAudit]:
        audits = [PairAudit(state.did, state.collection, state.pds) for state in states]
        try:
            async with asyncio.timeout(self._seconds):
                try:
                    return await self._prove(audits, await repositories.open(network, did))
                except ArchiveUnavailable:
                    pass  # then by pages
                pds = (await network.identities.resolve_did(did)).pds
                rev = await network.repos.latest_rev(pds, did)
        except TimeoutError:
            for found in audits:
                found.is_whole, found.error = False, f"{did} could not be found within {self._seconds:g} s"
            return audits
        except Exception as exc:  # noqa: BLE001 - see _fail
            for found in audits:
                _fail(found, exc)
            return audits
        for found, state in zip(audits, states, strict=True):
            found.pds = pds
            try:
                async with asyncio.timeout(self._seconds):
                    await self._pair(found, state, rev, network.repos)
            except TimeoutError:
                found.is_whole, found.error = False, f"{pds} did not show the whole list within {self._seconds:g} s"
            except Exception as exc:  # noqa: BLE001 - see _fail
                _fail(found, exc)
        return audits

    async def _prove(self, audits: list[PairAudit], archive: Archive) -> list[PairAudit]:
        from parity_dagster.importing.verify import verify_account

        nsids = [found.collection for found in audits]
        comparison = verify_account(self._settings, archive.did, nsids, archive, self._mappers)
        verified: list[Verification] = await beside_the_loop(list, comparison)
        # What is being read anew meanwhile, or was forgotten, is nobody's to audit any more.
        results = {result.collection: result for result in verified if result.error_code != "incomplete"}
        audits = [found for found in audits if found.collection in results]
        for found in audits:
            result = results[found.collection]
            found.pds, found.error = archive.pds, result.error
            found.is_gone = result.error_code in GONE
            if result.error is None:
                found.is_proven = True
                found.compared = result.equal + result.missing + result.different
                found.unverifiable = result.unverifiable
                found.missing, found.different, found.surplus = result.missing, result.different, result.surplus
                found.changed, found.examples = result.changed + result.newer, result.examples
        return audits

    async def _pair(self, found: PairAudit, state: ImportState, rev: str | None, repo: RepoClient) -> None:
        assert found.pds is not None
        stored, failed = stored_keys(self._conn, state.pair), failed_keys(self._conn, state.pair)
        # What has a greater revision came later; without one from the host, the time of the import stands in.
        observed_rev = state.rev or (tid_of(state.started_at) if state.started_at else "")
        is_unmoved = rev is not None and rev == state.rev
        seen: set[str] = set()
        cursor: str | None = None
        for number in range(self._max_pages):
            page = await repo.list_records(
                found.pds, state.did, state.collection, cursor=cursor, limit=self._settings.page_size
            )
            rows = [row for row in page.records if row[0] not in seen and row[0] not in failed]
            seen.update(row[0] for row in page.records)
            seen.update(entry.rkey for entry in page.failed if entry.rkey)
            rows = self._wanted(state, rows)
            found.compared += len(rows)
            for rkey, problem in differing(self._conn, state.pair, rows).items():
                later = problem == "missing" and is_valid_tid(rkey) and rkey > observed_rev
                later = later or problem != "missing" or (stored.get(rkey) or "") > observed_rev
                self._count(found, "missing" if problem == "missing" else "different", rkey, not is_unmoved and later)
            if page.cursor is None or page.cursor == cursor:
                break
            cursor = page.cursor
            await asyncio.sleep(self._settings.page_delay / 1000 if number else 0)
        else:
            found.is_whole = False
            return
        for rkey in sorted(stored.keys() - seen):
            self._count(found, "surplus", rkey, not is_unmoved)

    def _wanted(self, state: ImportState, rows: list[Any]) -> list[Any]:
        if state.collection not in self._mappers:
            return rows
        kept = {row[0] for row in self._mappers.sort(state.did, state.collection, rows).kept}
        return [row for row in rows if row[0] in kept]

    def _count(self, found: PairAudit, problem: str, rkey: str, is_later: bool) -> None:
        if is_later:
            found.changed += 1
            return
        setattr(found, problem, getattr(found, problem) + 1)
        if len(found.examples) < EXAMPLES:
            found.examples.append(f"{problem} {rkey}")
