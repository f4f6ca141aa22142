"""The table compared with what the authors have signed, record by record; nothing is written.

A signed repository and the rows of a pair are both read in the order of record keys, side by side, so that it takes
the memory of some hundred records whatever the size of the account. Without a repository there is still the CID of each
row, which its own value has to have.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Iterator
from contextlib import AsyncExitStack, closing
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import msgspec
import psycopg

from parity_dagster.atproto.archive import check_cid
from parity_dagster.atproto.pages import FailedEntry
from parity_dagster.errors import (
    ArchiveOutdated,
    ArchiveTooBig,
    ArchiveTruncated,
    DatabaseError,
    DatabaseUnreachable,
    ParityError,
)
from parity_dagster.identifiers import is_valid_tid
from parity_dagster.importing.accounts import FreshAccounts
from parity_dagster.importing.archives import Archive, Archives
from parity_dagster.importing.mappers import Mappers
from parity_dagster.importing.pair_task import tid_of
from parity_dagster.importing.retry_policy import unexpected
from parity_dagster.models import ALL_COLLECTIONS, ImportState, ImportStatus, Verification
from parity_dagster.settings import Settings
from parity_dagster.store.listing import find_states
from parity_dagster.store.live import STAND_IN_END, Newest
from parity_dagster.store.postgres_errors import Patience
from parity_dagster.store.records import open_snapshot
from parity_dagster.store.verification import StoredRecord, find_excuses, stream_stored

if TYPE_CHECKING:
    from parity_dagster.atproto.network import Network
    from parity_dagster.importing.loop import BackgroundLoop, Connections, Running

EXAMPLES = 5
"""Records named per pair."""
AHEAD = 4
"""Repositories that are fetched while one is compared, that one included."""
BATCH = 500
"""Rows after which a comparison says how far it is."""

Advance = Callable[[int], None]


class SignedRepositories:
    """The repositories that one verification reads."""

    def __init__(self, settings: Settings, max_bytes: int | None = None) -> None:
        self._max_bytes = max_bytes or settings.max_repo_bytes
        self._archives: Archives | None = None
        self._accounts: FreshAccounts | None = None

    async def open(self, network: Network, did: str) -> Archive:
        """An account's repository, verified with the key that its DID document names now.

        Raises:
            ArchiveUnavailable: its host gives none that could be taken.
            ParityError: any other reason why it cannot be read.
        """
        if self._accounts is None or self._archives is None:
            self._accounts = FreshAccounts(network.identities)
            self._archives = Archives(network.repos, self._accounts.relocate, max_bytes=self._max_bytes)
        async with AsyncExitStack() as keep:  # one repository after the other: none has to wait for another to be used
            archive = await self._archives.open(await self._accounts.locate(did), Newest(), 0.0, keep)
            archive.readers += 1  # until it is forgotten, so that it is not closed to make room
            return archive

    def fetching(self, did: str) -> Callable[[Connections], Awaitable[Archive | ParityError]]:
        """The same for the loop, or why it cannot be read, whatever that is: it must cost one account."""

        async def fetch(opened: Connections) -> Archive | ParityError:
            try:
                return await self.open(opened.network, did)
            except ParityError as exc:
                return exc
            except Exception as exc:  # noqa: BLE001 - a stranger's server brought it about
                return unexpected(exc)

        return fetch

    async def forget(self, did: str, _: object = None) -> None:
        """Close an account's repository."""
        if self._archives is not None:
            self._archives.forget(did)

    def close(self) -> None:
        """Close all that are left; nothing must be fetched any more."""
        if self._archives is not None:
            self._archives.close()


def verify_signed(
    settings: Settings,
    loop: BackgroundLoop[Connections],
    dids: Iterable[str],
    collections: Collection[str] | None,
    advance: Advance,
) -> Iterator[Verification]:
    """Compare accounts with their repositories, the next of which are fetched meanwhile.

    Args:
        loop: where repositories are fetched.
        dids: taken as they are needed.
        collections: only these; None for all that were imported.
        advance: told how many records were compared since.
    """
    mappers = Mappers(settings.mappers)
    repositories = SignedRepositories(settings)
    loss = _Loss(settings)
    given = iter(dids)
    ahead: deque[tuple[str, Running[Archive | ParityError] | None]] = deque()
    try:
        while True:
            while len(ahead) < AHEAD and (did := next(given, None)) is not None:
                is_wanted = _is_wanted(settings, did, collections, loss)
                ahead.append((did, loop.start(repositories.fetching(did)) if is_wanted else None))
            if not ahead:
                return
            did, running = ahead[0]
            known: set[str] = set()
            for is_last in (False, True):
                archive = None if running is None else running.result()
                compare = partial(verify_account, settings, did, collections, archive, mappers, advance)
                with closing(_each_pair(compare, loss, known)) as results:
                    for found in results:
                        if found.error_code == ArchiveOutdated.code and not is_last:
                            break
                        yield found
                    else:
                        break
                # It may have been imported anew while its repository waited for others to be compared.
                loop.call(partial(repositories.forget, did))
                running = loop.start(repositories.fetching(did))
                ahead[0] = did, running
            ahead.popleft()
            if running is not None:
                loop.call(partial(repositories.forget, did))
    finally:
        for _, running in ahead:
            if running is not None:
                running.stop()
        repositories.close()


def verify_account(
    settings: Settings,
    did: str,
    collections: Collection[str] | None,
    archive: Archive | ParityError | None,
    mappers: Mappers,
    advance: Advance = lambda count: None,
    known: Collection[str] = (),
) -> Iterator[Verification]:
    """Compare an account with its repository, all of it as the table is at one moment.

    Args:
        archive: or why there is none; None if no pair was complete when it could have been fetched.
        known: collections that are left out.
    """
    with open_snapshot(settings) as conn:
        states = _states(conn, settings, did, collections)
        yield from _nothing(did, collections, states)
        for state in states:
            if state.collection in known:
                continue
            found = _begin(state, archive)
            if isinstance(archive, Archive) and found.error is None:
                try:
                    for count in compare(conn, state, archive, mappers, found):
                        advance(count)
                except (ArchiveTooBig, ArchiveTruncated) as exc:  # it takes for ever, or the disk that it lies on fails
                    found.error, found.error_code = str(exc), exc.code
            elif found.error is None:
                found.error, found.error_code = "it has only just been imported to its end", "incomplete"
            yield found


def verify_offline(
    settings: Settings, dids: Iterable[str], collections: Collection[str] | None, advance: Advance
) -> Iterator[Verification]:
    """Recompute the CID of every row of complete pairs from its value; no server is asked."""
    loss = _Loss(settings)
    for did in dids:
        yield from _each_pair(partial(_recompute_account, settings, did, collections, advance), loss, set())


def _recompute_account(
    settings: Settings, did: str, collections: Collection[str] | None, advance: Advance, known: Collection[str] = ()
) -> Iterator[Verification]:
    with open_snapshot(settings) as conn:
        states = _states(conn, settings, did, collections)
        yield from _nothing(did, collections, states)
        for state in states:
            if state.collection in known:
                continue
            found = _begin(state, None)
            if found.error is None:
                for count in _recompute(conn, state, found):
                    advance(count)
            yield found


class _Comparing(Protocol):
    def __call__(self, *, known: Collection[str]) -> Iterator[Verification]: ...


def _each_pair(compare: _Comparing, loss: _Loss, known: set[str]) -> Generator[Verification]:
    """One account's results; what is not there yet when the database is lost is compared anew.

    Args:
        known: collections whose results have been taken.
    """
    while True:
        try:
            for found in compare(known=known):
                loss.is_over()
                yield found
                known.add(found.collection)
            return
        except DatabaseError as exc:
            loss.wait(exc)


def _is_wanted(settings: Settings, did: str, collections: Collection[str] | None, loss: _Loss) -> bool:
    """Whether an account's repository is of any use."""
    while True:
        try:
            with open_snapshot(settings) as conn:
                states = _states(conn, settings, did, collections)
            loss.is_over()
            return any(state.status is ImportStatus.COMPLETED for state in states)
        except DatabaseError as exc:
            loss.wait(exc)


class _Loss:
    """The database, lost in the middle, is waited for as long as an import waits.

    A verification of everything takes hours, and would have to begin from its start.
    """

    def __init__(self, settings: Settings) -> None:
        self._seconds = settings.database_patience
        self._has_met = False
        self._patience: Patience | None = None

    def is_over(self) -> None:
        """Note that the database answers."""
        self._has_met, self._patience = True, None

    def wait(self, exc: DatabaseError) -> None:
        """Wait a little.

        Raises:
            DatabaseError: it was waited for long enough, or waiting is of no use.
        """
        cause = exc if isinstance(exc, DatabaseUnreachable) else exc.__cause__
        self._has_met |= isinstance(cause, psycopg.Error)
        if not self._has_met or not isinstance(cause, DatabaseUnreachable | psycopg.Error):
            raise exc
        self._patience = self._patience or Patience(self._seconds)
        try:
            delay = self._patience.pause(cause)
        except (DatabaseError, psycopg.Error):
            raise exc from cause  # which names the cure of somebody who only reads
        time.sleep(delay)


def _states(
    conn: psycopg.Connection[Any], settings: Settings, did: str, collections: Collection[str] | None
) -> list[ImportState]:
    states = find_states(conn, settings.state_table, dids=[did])
    return [state for state in states if collections is None or state.collection in collections]


def _nothing(did: str, collections: Collection[str] | None, states: list[ImportState]) -> Iterator[Verification]:
    if not states:
        what, only = "nothing", ""
        if collections is not None:
            what, only = f"no {' and no '.join(collections)}", "".join(f" --collection {nsid}" for nsid in collections)
        error = f"{what} of {did} was imported; `parity import {did}{only}` does"
        yield Verification(did, ALL_COLLECTIONS, error=error, error_code="not_imported")


def _begin(state: ImportState, archive: Archive | ParityError | None) -> Verification:
    found = Verification(state.did, state.collection)
    error: ParityError | None = archive if isinstance(archive, ParityError) else None
    if state.status is not ImportStatus.COMPLETED:
        found.error, found.error_code = f"{state.status}: only what is imported to its end is compared", "incomplete"
        return found
    if isinstance(archive, Archive):
        proof = archive.proof
        found.pds, found.rev, found.commit = archive.pds, proof.rev, proof.commit
        marks = [mark for mark in (state.rev, state.fence_rev) if mark and not mark.endswith(STAND_IN_END)]
        known = max(marks, default="")
        if proof.rev < known:
            error = ArchiveOutdated(
                f"the repository that {archive.pds} gives is of revision {proof.rev}, older than {known}, which was"
                " imported; try again later"
            )
    if error is not None:
        found.error, found.error_code = str(error), error.code
    return found


def _count(found: Verification, what: Literal["missing", "different", "surplus", "unverifiable"], rkey: str) -> None:
    setattr(found, what, getattr(found, what) + 1)
    if len(found.examples) < EXAMPLES:
        found.examples.append(f"{what} {rkey}")


def _recompute(conn: psycopg.Connection[Any], state: ImportState, found: Verification) -> Iterator[int]:
    count = 0
    with closing(stream_stored(conn, state.pair, hidden=True)) as rows:
        for row in rows:
            outcome = "unverifiable" if row.cid is None else check_cid(row.value, row.cid)
            if outcome == "equal":
                found.equal += 1
            else:
                _count(found, outcome, row.rkey)
            count += 1
            if count == BATCH:
                yield count
                count = 0
    yield count


class _Expected(NamedTuple):
    """A record of a repository, and what should have become of it."""

    rkey: str
    cid: str | None
    value: bytes
    fate: Literal["stored", "failed", "declined"] = "stored"


def compare(
    conn: psycopg.Connection[Any], state: ImportState, archive: Archive, mappers: Mappers, found: Verification
) -> Iterator[int]:
    """Compare a complete pair with its repository, and yield now and then how many records were compared since.

    Args:
        conn: one that sees what it saw when it read `state`.
        found: what is filled.
    """
    comparison = _Comparison(conn, state, archive, found)
    count = 0
    with closing(stream_stored(conn, state.pair, hidden=False)) as rows:
        row = next(rows, None)
        for page in archive.read(state.collection):
            for expected in _expected(state, page.rows, page.failed, mappers):
                while row is not None and row.rkey < expected.rkey:
                    comparison.take_surplus(row)
                    row = next(rows, None)
                    count += 1
                if row is not None and row.rkey == expected.rkey:
                    comparison.take_both(row, expected)
                    row = next(rows, None)
                else:
                    comparison.take_absent(expected)
                count += 1
            yield count
            count = 0
        while row is not None:
            comparison.take_surplus(row)
            row = next(rows, None)
            count += 1
            if count == BATCH:
                yield count
                count = 0
    yield count


def _expected(
    state: ImportState, rows: list[tuple[str, str | None, bytes]], failed: list[FailedEntry], mappers: Mappers
) -> list[_Expected]:
    expected = []
    if state.collection in mappers:
        page = mappers.sort(state.did, state.collection, rows)
        rows, failed = page.kept, [*failed, *page.failed]
        expected += [_Expected(rkey, None, b"", "declined") for rkey in page.skipped]
    expected += [_Expected(*row) for row in rows]
    for entry in failed:
        assert entry.rkey is not None  # the tree has one for each
        expected.append(_Expected(entry.rkey, _cid_of(entry), b"", "failed"))
    expected.sort(key=lambda record: record.rkey)
    return expected


def _cid_of(entry: FailedEntry) -> str:
    # Its JSON may be none, but it begins with uri and cid, which are.
    return entry.body.partition(b'"cid":"')[2].partition(b'"')[0].decode()


class _Comparison:
    """One pair under comparison."""

    def __init__(
        self, conn: psycopg.Connection[Any], state: ImportState, archive: Archive, found: Verification
    ) -> None:
        rev = archive.proof.rev
        self._found = found
        self._excuses = find_excuses(conn, state.pair, rev)
        self._is_exact = state.source == "repo"
        # What has a greater revision came later; without one from the host, the time of the import stands in.
        self._observed_rev = state.rev or (tid_of(state.started_at) if state.started_at else "")
        self._has_moved = rev != state.rev if state.rev else rev > self._observed_rev
        self._rev = rev

    def take_both(self, row: StoredRecord, expected: _Expected) -> None:
        """A record that the table holds in some form."""
        if expected.fate == "declined":
            return
        is_same = None if expected.fate == "failed" else is_same_json(row.value, expected.value)
        if row.cid != expected.cid and not (is_same and row.cid is None and not self._is_exact):  # some lists have none
            self._differs(row, "different")
        elif is_same:
            self._found.equal += 1
        elif is_same is None or (not self._is_exact and check_cid(row.value, row.cid or "") != "different"):
            # servers show floats, large numbers and old blobs in several ways
            _count(self._found, "unverifiable", row.rkey)
        else:
            _count(self._found, "different", row.rkey)

    def take_surplus(self, row: StoredRecord) -> None:
        """A row that the repository does not hold."""
        self._differs(row, "surplus")

    def take_absent(self, expected: _Expected) -> None:
        """A record that the table does not hold."""
        excuse = self._excuses.get(expected.rkey)
        if expected.fate == "declined":
            return
        if excuse is not None and excuse.kind == "failed":
            if self._has_moved and excuse.cids and expected.cid not in excuse.cids:
                self._found.changed += 1  # what is kept as failed is another version of it
            else:
                self._found.failed += 1
        elif excuse is not None:
            self._found.newer += 1
        elif self._has_moved and is_valid_tid(expected.rkey) and expected.rkey > self._observed_rev:
            self._found.changed += 1
        else:
            _count(self._found, "missing", expected.rkey)

    def _differs(self, row: StoredRecord, what: Literal["different", "surplus"]) -> None:
        is_sound = row.cid is None or check_cid(row.value, row.cid) != "different"
        if is_sound and row.rev is not None and row.rev > self._rev and not row.rev.endswith(STAND_IN_END):
            self._found.newer += 1  # no walk has marked it so: what it was told was not greater
        elif is_sound and self._has_moved and row.cid is not None:
            self._found.changed += 1  # nobody can say any more if it was there, but it was signed as it is
        else:
            _count(self._found, what, row.rkey)


class _HasFloat(Exception):
    pass


def _refuse_float(text: str) -> float:
    raise _HasFloat(text)


_decode = msgspec.json.Decoder(float_hook=_refuse_float).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def is_same_json(left: bytes, right: bytes) -> bool | None:
    """Whether two texts are the same JSON value, numbers compared to their last digit.

    Returns:
        None if they are too deep to be told.
    """
    try:
        return _encode(_decode(left)) == _encode(_decode(right))
    except (_HasFloat, msgspec.MsgspecError, RecursionError, OverflowError):
        pass
    try:
        return bool(_read_exactly(left) == _read_exactly(right))
    except RecursionError:
        return None


def _number(text: str) -> tuple[Decimal]:
    return (Decimal(text),)  # in a tuple, because Python takes 1 and true for equal, too


def _read_exactly(text: bytes) -> Any:
    return json.loads(text, parse_float=_number, parse_int=_number)
