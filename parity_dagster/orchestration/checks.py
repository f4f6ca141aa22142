"""The checks: whether everything that was imported is whole, and if not, where.

They belong to an asset of their own, `import_checks`. Those of `atproto/records` would be executed again by each run
that somebody launches for some partitions, and what is true of these would stand for all; and Dagster forgets a verdict
as soon as its asset is materialized, which that one is whenever a pair ends. Annotations here are evaluated (no
`from __future__ import annotations`), because Dagster reads them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from random import SystemRandom
from typing import Protocol

import dagster as dg
from pydantic import Field

from parity_dagster.dagster_instance.keys import RECORDS_KEY
from parity_dagster.errors import GONE
from parity_dagster.importing.audit import PairAudit, audit
from parity_dagster.models import ImportStatus, Pair
from parity_dagster.orchestration.dagster_compat import UNDER_WAY, plain_failures
from parity_dagster.orchestration.markdown import account_link, link, partition_link, record_url, table
from parity_dagster.orchestration.partitions import DIDS
from parity_dagster.orchestration.rebuild import emptied_pairs, remembered_states
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.consistency import ConsistencyQueries, FailedPair, pending_pairs
from parity_dagster.store.database import connect
from parity_dagster.store.freshness import age_text
from parity_dagster.store.known import find_missing, missing_sentence
from parity_dagster.store.listing import stream_states
from parity_dagster.store.states import state_from_row
from parity_dagster.store.suspects import Suspect, find_empty, find_suspects

CHECKS_KEY = dg.AssetKey(["import_checks"])
"""The asset that the checks belong to. It is never materialized, so a verdict stands until the next one."""

import_checks = dg.AssetSpec(
    CHECKS_KEY,
    deps=[RECORDS_KEY],
    group_name="overview",
    kinds={"postgres"},
    owners=["team:parity"],
    description=(
        "Is the copy whole? Its checks look at everything that was imported, whoever imported it: open the tab Checks. "
        "`refresh_overview` executes those that only ask Postgres, every few minutes while something is imported and "
        "when it ends; `run_all_checks` executes all of them."
    ),
)
"""The asset; nothing makes it, so that Dagster executes its checks in no run of another one."""

LISTED = 100
"""Rows that a check's tables show."""


class AuditConfig(dg.Config):
    """Run config of `sample_audit`."""

    accounts: int = Field(5, ge=1, le=1000, description="accounts read again")
    max_pages: int = Field(100, ge=1, description="pages read of each of their pairs")
    seed: int = Field(0, description="of the draw; 0 draws anew each time")


class SuspectsConfig(dg.Config):
    """Run config of `no_suspicious_copies`."""

    seconds: int = Field(60, ge=1, description="how long to look; the next execution begins at another account")


class FreshnessConfig(dg.Config):
    """Run config of `import_freshness`."""

    stuck_minutes: int = Field(60, ge=1, description="how long a pair may wait, or be in progress, without a change")
    stale_days: int = Field(30, ge=1, description="how old the last complete reading of a pair may be")


@contextmanager
def consistency_queries(settings: Settings) -> Iterator[ConsistencyQueries]:
    """Queries on a connection of its own."""
    with plain_failures(), closing(connect(settings, autocommit=True)) as conn:
        yield ConsistencyQueries(conn, settings.state_table)


def check_result(
    *,
    passed: bool,
    said: str,
    headings: Sequence[str] = (),
    rows: Sequence[Sequence[object]] = (),
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    **numbers: int | float,
) -> dg.AssetCheckResult:
    """A check's outcome; `severity` is how bad it is, if it has not passed."""
    metadata: dict[str, dg.MetadataValue] = {
        name: dg.MetadataValue.float(value) if isinstance(value, float) else dg.MetadataValue.int(value)
        for name, value in numbers.items()
    }
    if rows:
        shown = table(headings, rows[:LISTED], len(rows) - LISTED)
        metadata["found"] = dg.MetadataValue.md(shown)
    return dg.AssetCheckResult(passed=passed, description=said, metadata=metadata, severity=severity)


class _OfPair(Protocol):
    @property
    def did(self) -> str: ...
    @property
    def collection(self) -> str: ...


NAMED = 3
"""Pairs that a sentence names."""


def some_of(pairs: Sequence[_OfPair], most: int = NAMED) -> str:
    """Some of the pairs, for a sentence."""
    names = ", ".join(f"{pair.collection}|{pair.did}" for pair in pairs[:most])
    return names + (f" and {len(pairs) - most:,} more" if len(pairs) > most else "")


MOST_EMPTY = 1000
"""Pairs without a record whose history in Dagster is looked at."""
COMPARED_FIELDS = (
    "status", "cursor", "records_synced", "records_skipped", "records_failed", "started_at", "completed_at", "error",
    "error_code", "pds", "rev", "walk", "pages",
)  # fmt: skip
"""What a row and its metadata must agree on; the others change without an import."""

Service = dg.ResourceParam[ImportService]


@dg.asset_check(asset=CHECKS_KEY)
def no_failed_records(import_service: Service) -> dg.AssetCheckResult:
    """There are no failed records."""
    with consistency_queries(import_service.settings) as queries:
        found = queries.failed_records()
    total = sum(count.records for count in found)
    pairs = list(dict.fromkeys(Pair(count.did, count.collection) for count in found))
    reasons: Counter[str] = Counter()
    for count in found:
        reasons[count.reason] += count.records
    by_reason = ", ".join(f"{reason} ({number:,})" for reason, number in reasons.most_common())
    return check_result(
        passed=not found,
        said=(
            f"{total:,} records of {len(pairs):,} pairs could not be stored: {by_reason}; in {some_of(pairs)}. `parity "
            "failed-records` shows them byte for byte, `parity failed-records --retry` tries them again."
            if found
            else "Every record that was read is stored."
        ),
        headings=["partition", "reason", "#records", "example", "record"],
        rows=[
            [
                partition_link(Pair(count.did, count.collection)),
                count.reason,
                count.records,
                count.example,
                link(count.rkey, record_url(count.did, count.collection, count.rkey)) if count.rkey else None,
            ]
            for count in found
        ],
        failed_records=total,
        pairs_with_failed_records=len(pairs),
    )


@dg.asset_check(asset=CHECKS_KEY)
def no_failed_imports(import_service: Service) -> dg.AssetCheckResult:
    """No pair's last import ended with an error, except of accounts that are gone."""
    with consistency_queries(import_service.settings) as queries:
        failed = queries.failed_pairs()
        looked_at = queries.count_pairs()
    gone = [pair for pair in failed if pair.error_code in GONE]
    found = [pair for pair in failed if pair.error_code not in GONE]
    besides = f" {len(gone):,} pairs are of accounts that are gone: {_codes(gone)}." if gone else ""
    return check_result(
        passed=not found,
        said=(
            # no sums that grow by themselves: the sentence is posted again as soon as it says something else
            f"{len(found):,} pair{'s' * (len(found) != 1)} failed: {_codes(found)};"
            f" {some_of(found)}. Those with a next attempt are tried again by"
            " themselves; `parity import --resume` tries all of them now."
            if found
            else f"None of {looked_at:,} pairs has failed.{besides}"
        ),
        headings=["partition", "error", "message", "#attempts", "next attempt (UTC)"],
        rows=[
            [
                partition_link(Pair(pair.did, pair.collection)), pair.error_code, pair.error, pair.attempts,
                pair.next_attempt_at,
            ]
            for pair in (*found, *gone)
        ],
        failed_pairs=len(found),
        gone_pairs=len(gone),
        pairs=looked_at,
    )  # fmt: skip


def _codes(pairs: Sequence[FailedPair]) -> str:
    counted = Counter(pair.error_code or "unknown" for pair in pairs)
    return ", ".join(f"{code} ({number:,})" for code, number in counted.most_common())


@dg.asset_check(asset=CHECKS_KEY)
def counts_match(import_service: Service) -> dg.AssetCheckResult:
    """The table holds as many records of each pair as its import counted."""
    with consistency_queries(import_service.settings) as queries:
        found = queries.miscounts()
        looked_at = queries.count_pairs()
    return check_result(
        passed=not found,
        said=(
            f"{len(found):,} {'pair has' if len(found) == 1 else 'pairs have'} another number of rows than the import"
            f" counted: {some_of(found)}. Somebody has changed the table by hand; `parity "
            "import DID --collection NSID --reread` corrects one, `parity doctor --mend` all of them."
            if found
            else f"Rows and counts agree for {looked_at:,} pairs."
        ),
        headings=["partition", "#counted", "#rows", "#difference"],
        rows=[
            [partition_link(Pair(p.did, p.collection)), p.records_synced, p.rows, p.rows - p.records_synced]
            for p in found
        ],
        pairs_that_differ=len(found),
        pairs=looked_at,
    )


@dg.asset_check(asset=CHECKS_KEY)
def state_equals_metadata(context: dg.AssetCheckExecutionContext, import_service: Service) -> dg.AssetCheckResult:
    """Each pair's row equals the metadata of its last materialization."""
    settings = import_service.settings
    active = set(context.instance.get_run_ids(dg.RunsFilter(statuses=UNDER_WAY))) - {context.run.run_id}
    # The events are read before the rows: what ends in between is newer in the table, and its run will report it.
    remembered = {state.pair: state for state in remembered_states(context.instance)}
    accounts = set(context.instance.get_dynamic_partitions(DIDS))
    is_full = len(accounts) >= settings.partition_limit
    found: list[tuple[Pair, str, object, object]] = []
    differing: list[Pair] = []
    ended = unshown = 0
    with plain_failures(), closing(connect(settings)) as conn:
        # An import outside of Dagster reports its pairs in batches.
        pending = pending_pairs(conn, settings.state_table)
        for row in stream_states(conn, settings.state_table):
            state = state_from_row(row)
            then = remembered.pop(state.pair, None)
            if state.status not in (ImportStatus.COMPLETED, ImportStatus.FAILED):
                continue
            ended += 1
            if state.run_id in active or state.pair in pending:
                continue
            if then is None:
                if is_full and state.did not in accounts:
                    unshown += 1
                    continue
                differences: list[tuple[str, object, object]] = [("materialization", str(state.status), "none")]
            else:
                differences = [
                    (name, getattr(state, name), getattr(then, name))
                    for name in COMPARED_FIELDS
                    if getattr(state, name) != getattr(then, name)
                ]
            if differences:
                differing.append(state.pair)
                found += [(state.pair, *difference) for difference in differences if len(found) < LISTED]
    differing += remembered
    found += [(pair, "row", "none", str(then.status)) for pair, then in remembered.items()][: LISTED - len(found)]
    without = f"; {unshown:,} have no partition (PARITY_PARTITION_LIMIT)" if unshown else ""
    return check_result(
        passed=not differing,
        said=(
            f"{len(differing):,} pairs differ between the state table and Dagster: {some_of(differing)}. `parity report"
            " --all` tells Dagster what it lacks, also when PARITY_PARTITION_LIMIT was raised; `parity rebuild-states`"
            " restores missing rows; `parity import` makes those anew that `parity reset` has removed."
            if differing
            else f"State table and metadata agree for {ended - unshown:,} pairs{without}."
        ),
        headings=["partition", "what", "in the table", "in Dagster"],
        rows=[[partition_link(pair), *rest] for pair, *rest in found],
        pairs_that_differ=len(differing),
        pairs=ended,
    )


@dg.asset_check(asset=CHECKS_KEY)
def sample_audit(config: AuditConfig, import_service: Service) -> dg.AssetCheckResult:
    """Accounts drawn by chance are read again from their PDSes, as signed repositories where these give them; uri, cid
    and value of each record agree."""
    with plain_failures():
        report = audit(
            import_service.settings,
            accounts=config.accounts,
            seed=config.seed or SystemRandom().randrange(1, 2**31),
            max_pages=config.max_pages,
        )
    bad = [pair for pair in report.pairs if not pair.is_equal]
    unread = [pair for pair in report.pairs if pair.error and not pair.is_gone]
    gone = [pair for pair in report.pairs if pair.is_gone]
    surplus = sum(pair.surplus for pair in report.pairs)
    accounts = len({pair.did for pair in report.pairs})
    if bad:
        said = (
            f"{report.lost:,} of {report.compared:,} records are missing or different ({report.loss_rate:.4%}) and "
            f"{surplus:,} are surplus, in {some_of(bad)}. `parity import --reread` "
            "with these accounts reads them again."
        )
    elif unread:
        said = (
            f"{len(unread):,} of {len(report.pairs):,} pairs could not be read again: {unread[0].error}. The "
            f"{report.compared:,} records that could be compared agree."
        )
    elif report.pairs and all(pair.is_proven for pair in report.pairs):
        said = f"{report.compared:,} records of {accounts:,} accounts are proven: they are what was signed."
    elif report.pairs:
        proven = f", and {report.proven:,} of them are proven: they are what was signed" if report.proven else ""
        said = f"{report.compared:,} records of {accounts:,} accounts were read again and agree with the table{proven}."
    else:
        said = "There is nothing to audit yet."
    if unverifiable := sum(pair.unverifiable for pair in report.pairs):
        said += f" {unverifiable:,} more can be compared with nothing: see `parity verify`."
    if gone:
        said += f" {len(gone):,} pairs could not be read again, because their accounts are gone by now."
    return check_result(
        passed=not bad and not unread,
        said=said,
        severity=dg.AssetCheckSeverity.ERROR if bad else dg.AssetCheckSeverity.WARN,
        headings=[
            "partition", "outcome", "#compared", "#missing", "#different", "#surplus", "#changed since", "whole",
            "remarks",
        ],
        rows=[_audit_row(pair) for pair in sorted(report.pairs, key=lambda pair: (pair.is_equal, not pair.error))],
        loss_rate=report.loss_rate,
        records_compared=report.compared,
        records_proven=report.proven,
        records_lost=report.lost,
        records_surplus=surplus,
        accounts_audited=accounts,
    )  # fmt: skip


def _audit_row(pair: PairAudit) -> list[object]:
    remarks = pair.error or "; ".join(pair.examples) or None
    return [
        partition_link(Pair(pair.did, pair.collection)), pair.outcome, pair.compared, pair.missing, pair.different,
        pair.surplus, pair.changed, pair.is_whole and not pair.error, remarks,
    ]  # fmt: skip


@dg.asset_check(asset=CHECKS_KEY)
def no_suspicious_copies(
    context: dg.AssetCheckExecutionContext, config: SuspectsConfig, import_service: Service
) -> dg.AssetCheckResult:
    """No complete pair bears the traces of an earlier version's faults."""
    settings = import_service.settings
    with plain_failures(), closing(connect(settings, autocommit=True)) as conn:
        report = find_suspects(conn, settings.state_table, page_size=settings.page_size, seconds=config.seconds)
        empty = find_empty(conn, settings.state_table, MOST_EMPTY)
    # Rows beside the count are `counts_match`'s to report.
    found = {(suspect.pair, suspect.problem): suspect for suspect in report.suspects if suspect.problem != "rows"}
    for pair, records in emptied_pairs(context.instance, empty).items():
        detail = f"no record, but Dagster remembers {records:,} at the same revision"
        found[pair, "few"] = Suspect(*pair, "few", 0, detail)
    pairs = list(dict.fromkeys(pair for pair, _ in found))
    rest = "" if report.is_whole else f"; the others had to wait after {config.seconds} s, the next execution goes on"
    return check_result(
        passed=not found,
        said=(
            f"The copies of {len(pairs):,} pairs may be wrong: {some_of(pairs)}. `parity import DID --collection NSID "
            f"--reread` reads one again and corrects it, `parity doctor --mend` all of them{rest}."
            if found
            else f"Nothing suspicious in {report.records:,} records of {report.pairs:,} complete pairs{rest}."
        ),
        headings=["partition", "problem", "#records", "detail", "command"],
        rows=[
            [
                partition_link(pair), problem, suspect.records, suspect.detail,
                f"parity import {pair.did} --collection {pair.collection} --reread",
            ]
            for (pair, problem), suspect in found.items()
        ],
        suspicious_pairs=len(pairs),
        pairs=report.pairs,
        records=report.records,
    )  # fmt: skip


@dg.asset_check(asset=CHECKS_KEY)
def import_freshness(config: FreshnessConfig, import_service: Service) -> dg.AssetCheckResult:
    """No pair waits for ever, and none was read too long ago."""
    # those of collections that are not registered wait, and age, because somebody wants it so
    collections = import_service.settings.collections
    with consistency_queries(import_service.settings) as queries:
        stuck = queries.stuck(timedelta(minutes=config.stuck_minutes), collections)
        stale = queries.stale(timedelta(days=config.stale_days), collections)
        looked_at = queries.count_pairs()
        age = queries.age_of_stalest(collections)
    # How many they are is in the numbers: it grows by itself, and a check is posted when it says something else.
    said = []
    if stuck:
        said.append(
            f"Pairs have waited for more than {config.stuck_minutes} minutes while no run took any, first of all "
            f"{some_of(stuck[:NAMED])}. Is the daemon running and retry_sensor on? `parity import --resume` imports"
            " them now."
        )
    if stale:
        said.append(
            f"Pairs were read or confirmed more than {config.stale_days} days ago, first of all"
            f" {some_of(stale[:NAMED])}. `parity import --known --refresh` reads them again; an account that"
            " has not changed costs one request."
            " PARITY_REFRESH_EVERY has that done by itself."
        )
    return check_result(
        passed=not stuck and not stale,
        said=" ".join(said)
        or f"None of {looked_at:,} pairs waits in vain, and what is complete was read or confirmed within"
        f" {config.stale_days} days"
        f"{'' if age is None else f'; the stalest copy is {age_text(age)} old'}.",
        severity=dg.AssetCheckSeverity.ERROR if stuck else dg.AssetCheckSeverity.WARN,
        headings=["partition", "status", "since (UTC)"],
        rows=[[partition_link(Pair(p.did, p.collection)), p.status, p.since] for p in (*stuck, *stale)],
        pairs_stuck=len(stuck),
        pairs_stale=len(stale),
        pairs=looked_at,
        **({} if age is None else {"stalest_copy_days": round(age / 86_400, 3)}),
    )


@dg.asset_check(asset=CHECKS_KEY)
def no_missing_collections(import_service: Service) -> dg.AssetCheckResult:
    """Every account that is known has a row for each registered collection."""
    settings = import_service.settings
    with plain_failures(), closing(connect(settings, autocommit=True)) as conn:
        missing = find_missing(conn, settings.state_table, settings.collections)
    return check_result(
        passed=not missing,
        said=(
            f"{missing_sentence(missing)}. `parity import --known --queue` leaves what is missing to the queue; a"
            " collection that not every account is to be asked for does not belong into PARITY_COLLECTIONS."
            if missing
            else "Every account has a row for each registered collection."
        ),
        severity=dg.AssetCheckSeverity.WARN,
        headings=["collection", "#accounts without a row", "one of them"],
        rows=[[entry.collection, entry.accounts, account_link(entry.example)] for entry in missing],
        pairs_missing=sum(entry.accounts for entry in missing),
    )


CHECKS: tuple[dg.AssetChecksDefinition, ...] = (
    no_failed_records, no_failed_imports, counts_match, state_equals_metadata, sample_audit, import_freshness,
    no_suspicious_copies, no_missing_collections,
)  # fmt: skip
"""All of them; each needs the resource `import_service`."""
QUICK_CHECKS = [check for check in CHECKS if check not in (sample_audit, state_equals_metadata, no_suspicious_copies)]
"""Those that only ask PostgreSQL, and not for long."""
