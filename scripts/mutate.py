"""Plant small faults one at a time and see which tests notice: `python scripts/mutate.py [--write] [name …]`.

Each fault is a slip that a person makes: an inverted condition, a forgotten lock, a wrong revision. A fault that no
test notices shows what the tests do not guard. The faults are planted in a copy of the tree, never in the tree itself.

    --check    plant nothing; say whether every fault can still be planted, because code moves
    --write    put the table into docs/mutations.md
    --results  file in which results are kept as they come; faults that have one there are not tried again
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "parity_dagster_tests"
PAGE = ROOT / "docs" / "mutations.md"
TIME_LIMIT = 1_500
"""Seconds for the tests of one fault on a busy machine; a fault that makes them hang is noticed, too."""
TOO_LONG = "(time limit)"
WIDER = ("test_evidence", "test_live", "test_service", "test_queue", "test_network_model")
"""What is run for a fault that its own tests do not notice."""


class Mutant(NamedTuple):
    """A fault, where it is planted, and the tests that ought to notice."""

    name: str
    slip: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


WALK, TASK, BATCH = "importing/walk.py", "importing/pair_task.py", "importing/batch.py"
WRITER, CLAIMS, RETRY_POLICY = "importing/writer.py", "importing/claims.py", "importing/retry_policy.py"
PAGES, WALK_PAGES, LIVE, STATES = "store/pages.py", "store/walk_pages.py", "store/live.py", "store/states.py"
QUEUE, DISCOVERIES, DISCOVERY = "store/queue.py", "store/discoveries.py", "importing/discovery.py"
FRESHNESS = "store/freshness.py"

MUTANTS = (
    Mutant("unchanged-with-failed", "condition left out: a pair with failed records is taken as unchanged", WALK,
           "            and state.records_failed == 0\n", "", ("test_bad_records", "test_service")),
    Mutant("unchanged-elsewhere", "condition left out: another host's equal revision counts", WALK,
           "            and state.pds == account.pds\n", "", ("test_walk_quirks",)),
    Mutant("unchanged-without-revision", "None equals None: a host without revisions is never read again", WALK,
           "            and rev is not None\n", "", ("test_walk_quirks", "test_service")),
    Mutant("place-not-kept", "clean-up forgotten: a walk that brought no page takes the place of the one before", WALK,
           "            except Exception:\n                task.return_to(place)\n                raise",
           "            except Exception:\n                raise", ("test_errors_and_retries", "test_walk_quirks")),
    Mutant("end-believed", "condition inverted: an end that shows nothing is believed without asking", WALK,
           "if not task.shows_nothing:", "if task.shows_nothing:", ("test_walk_quirks",)),
    Mutant("only-empty-lists-asked", "condition left over: a list that showed something is believed to end", WALK,
           "if not task.shows_nothing:", "if not task.shows_nothing or task.here.seen:", ("test_walk_quirks",)),
    Mutant("old-word-believed", "time forgotten: an answer from before the last page vouches for it", WALK,
           "if task.claim.is_fresh and has_begun else 0.0", "if True else 0.0", ("test_walk_quirks",)),
    Mutant("overlap-inverted", "condition inverted: what an inclusive cursor repeats counts twice", WALK,
           "if not keys.isdisjoint(task.last_keys):", "if keys.isdisjoint(task.last_keys):", ("test_walk_quirks",)),
    Mutant("stopped-goes-on", "check forgotten: a walk goes on after its pair was taken away", WALK,
           "        if task.done.is_set():\n            raise Interrupted(",
           "        if False:\n            raise Interrupted(", ("test_claims",)),
    Mutant("page-limit-off-by-one", "off by one: PARITY_MAX_PAGES allows one page more", WALK,
           "if pages >= self._settings.max_pages:", "if pages > self._settings.max_pages:",
           ("test_walk_quirks",)),
    Mutant("restarts-for-ever", "flag never cleared: a host that refuses its own cursors is read for ever", WALK,
           "                may_restart = False", "                may_restart = True", ("test_walk_quirks",)),
    Mutant("known-revision-ignored", "argument forgotten: rows of a host that once was ahead lock out its pages", WALK,
           "task.begin(account.pds, rev, known_rev)", "task.begin(account.pds, rev, None)",
           ("test_evidence", "test_live")),
    Mutant("stale-host-believed", "condition inverted: the host that an account has left deletes what came since", WALK,
           "(rev is None or rev < known_rev) and", "(rev is None or rev > known_rev) and", ("test_walk_quirks",)),
    Mutant("mark-in-the-future", "sign: without a revision, rows are marked with a time after the walk", TASK,
           "datetime.now(UTC) - CLOCK_MARGIN", "datetime.now(UTC) + CLOCK_MARGIN", ("test_evidence", "test_live")),
    Mutant("cursor-of-another-host", "condition left out: a walk resumes on a host that does not know its cursor",
           TASK, "            and self.here.pds == pds\n", "", ("test_walk_quirks",)),
    Mutant("blank-written", "clean-up forgotten: pages that showed nothing and were not believed count as read", TASK,
           "            self.here = self.before_blank\n", "", ("test_evidence", "test_walk_quirks")),
    Mutant("resumed-end-believed", "condition forgotten: a walk is resumed though its list is gone", WALK,
           "if is_resumed and not is_read and await self._is_another_list(task):", "if False:", ("test_evidence",)),
    Mutant("emptied-is-known", "condition left out: a pair that became empty passes for read", WALK,
           "if not (task.here.seen or task.claim.is_fresh):", "if False:", ("test_walk_quirks",)),
    Mutant("contradiction-once", "condition left over: a host that lost its list is believed the second time", WALK,
           "(state.position.seen and here.rev", "(state.position.seen and state.completed_at and here.rev",
           ("test_evidence",)),
    Mutant("new-walk-unmarked", "flag forgotten: page rows of the walk before stay", BATCH,
           "write.is_new_walk, write.is_counted, self._last_rkey = True, True, None",
           "write.is_new_walk, write.is_counted, self._last_rkey = False, True, None",
           ("test_service", "test_walk_quirks")),
    Mutant("equal-keys-in-order", "less for less or equal: a record that comes twice counts twice", BATCH,
           "from operator import ge, le\n", "from operator import ge, lt as le\n",
           ("test_batches", "test_walk_quirks")),
    Mutant("order-remembered", "condition left out: counts pass for exact after a batch that was not in order", BATCH,
           "self._last_rkey if write.is_counted else None", "self._last_rkey", ("test_batches", "test_walk_quirks")),
    Mutant("at-once-too-soon", "condition left out: a walk of several batches ends as if it were of one", BATCH,
           "position.walk == 1 and starts and write.is_counted", "position.walk == 1 and write.is_counted",
           ("test_batches", "test_crash", "test_evidence")),
    Mutant("counts-swapped", "arguments swapped: progress counts failed records as skipped", BATCH,
           "write.counts.plus(len(item.rows), len(item.skipped), len(item.failed))",
           "write.counts.plus(len(item.rows), len(item.failed), len(item.skipped))",
           ("test_bad_records", "test_mappers")),
    Mutant("not-settled", "statement forgotten: what is committed is not remembered", WRITER,
           "        for batch in batches:\n            batch.committed()\n", "        for batch in batches:\n",
           ("test_walk_quirks",)),
    Mutant("lost-claims-kept", "condition inverted: of a batch the pairs that were lost are written", WRITER,
           "if batch.write.state_id not in lost]", "if batch.write.state_id in lost]", ("test_claims",)),
    Mutant("unproven-completes", "condition inverted: a walk without evidence does not fail", WRITER,
           "if write.state_id in state_ids:", "if write.state_id not in state_ids:", ("test_evidence",)),
    Mutant("claim-not-asked", "condition left out: pages are written whoever holds the pair", PAGES,
           "WHERE s.id = u.id AND s.importer_id = %(importer)s RETURNING s.id",
           "WHERE s.id = u.id AND %(importer)s IS NOT NULL RETURNING s.id", ("test_claims", "test_evidence")),
    Mutant("page-without-lock", "lock forgotten: a page and an event do not see each other", PAGES,
           "await lock_pairs(conn, (Pair(write.did, write.collection) for write in writes), shared=True)", "pass",
           ("test_live",)),
    Mutant("hidden-stays-hidden", "condition left out: records of an account that came back stay hidden", PAGES,
           " AND r.cid = u.cid AND r.active LIMIT 1", " AND r.cid = u.cid LIMIT 1", ("test_service",)),
    Mutant("page-over-event", "revision not compared: a page overwrites what an event wrote after it was read", PAGES,
           "WHERE (r.rev IS NULL OR r.rev <= EXCLUDED.rev)", "WHERE (r.rev IS NULL OR r.rev IS NOT NULL)",
           ("test_live",)),
    Mutant("sweep-of-newer", "revision not compared: records written after the walk began are swept", PAGES,
           '" AND (rev IS NULL OR rev <= %(rev)s) AND EXISTS (SELECT FROM proof)"\n                " AND rkey NOT IN',
           '" AND EXISTS (SELECT FROM proof)"\n                " AND rkey NOT IN', ("test_live",)),
    Mutant("sweep-without-proof", "condition left out: a sweep does not ask whether all pages are there", PAGES,
           '" AND (rev IS NULL OR rev <= %(rev)s) AND EXISTS (SELECT FROM proof)"\n                " AND rkey NOT IN',
           '" AND (rev IS NULL OR rev <= %(rev)s)"\n                " AND rkey NOT IN',
           ("test_evidence",)),
    Mutant("lagging-list-believed", "condition left out: a list that lags behind its own revision deletes", PAGES,
           "(rev IS DISTINCT FROM %(told)s OR", "(%(told)s::text IS NOT NULL OR", ("test_evidence",)),
    Mutant("missing-pages-pass", "difference the wrong way round: an ending without all pages passes", PAGES,
           "if claimed - found:", "if found - claimed:", ("test_evidence",)),
    Mutant("inactive-shown", "condition inverted: records of an inactive account are shown", PAGES,
           "if write.ending.deactivate:", "if not write.ending.deactivate:", ("test_service", "test_walk_quirks")),
    Mutant("resumes-inactive", "statement forgotten: a walk resumes though its records were hidden meanwhile", PAGES,
           "            await have_read_again(conn, self._name, hidden)\n", "            pass\n", ("test_evidence",)),
    Mutant("refresh-for-ever", "flag never cleared: a queued refresh is repeated with every import", PAGES,
           "refresh = s.refresh AND u.status <> 'completed'", "refresh = s.refresh",
           ("test_queue", "test_queue_api", "test_service")),
    Mutant("some-pages-suffice", "any for all: some pages are taken as evidence for the whole list", WALK_PAGES,
           "(SELECT count(*) = s.pages AND min(page) = 1 AND max(page) = s.pages FROM", "(SELECT count(*) > 0 FROM",
           ("test_evidence",)),
    Mutant("evidence-of-another-table", "key incomplete: pages of another state table are evidence", WALK_PAGES,
           '" WHERE state_table = {state_table} AND state_id = s.id AND walk = s.walk)"',
           '" WHERE state_id = s.id AND walk = s.walk)"', ("test_evidence", "test_migrations")),
    Mutant("resumes-without-pages", "condition left out: a walk resumes though some of its pages are not known",
           WALK_PAGES, " AND (rows, first, page) = (%(pages)s, 1, %(pages)s)", " AND %(pages)s > 0",
           ("test_evidence",)),
    Mutant("tombstones-inverted", "comparison inverted: a page brings back what an event deleted", LIVE,
           "USING (did, collection) WHERE t.rev > u.rev", "USING (did, collection) WHERE t.rev < u.rev",
           ("test_live",)),
    Mutant("tombstones-dropped-early", "revision not compared: deletions are forgotten that the walk is older than",
           LIVE, 'AND t.collection = u.collection AND t.rev <= u.rev",\n        _observed_revs(writes)',
           'AND t.collection = u.collection",\n        _observed_revs(writes)', ("test_live",)),
    Mutant("replay-overwrites", "condition left out: a replayed event overwrites a newer record", LIVE,
           "\n        \" WHERE r.rev IS NULL OR r.rev <= EXCLUDED.rev\"", "", ("test_live",)),
    Mutant("replay-revives", "comparison inverted: a replayed event brings back a deleted record", LIVE,
           "AND t.rkey = u.rkey AND t.rev > u.rev)", "AND t.rkey = u.rkey AND t.rev < u.rev)", ("test_live",)),
    Mutant("replay-deletes", "condition left out: a replayed deletion deletes what was written since", LIVE,
           'AND rkey = %(rkey)s"\n        " AND (rev IS NULL OR rev <= %(rev)s)",\n        key,',
           'AND rkey = %(rkey)s",\n        key,', ("test_live",)),
    Mutant("deletion-with-shared-lock", "wrong argument: a deletion does not wait for the page under way", LIVE,
           "await lock_pairs(conn, (Pair(did, collection),), shared=False)",
           "await lock_pairs(conn, (Pair(did, collection),), shared=True)", ("test_live",)),
    Mutant("failed-outlives-deletion", "statement forgotten: a deleted record that failed is tried again", LIVE,
           "        return False\n    await _drop_failed(conn, [(did, collection, rkey)])\n", "        return False\n",
           ("test_live", "test_bad_records")),
    Mutant("pruned-too-soon", "comparison inverted: tombstones go that a walk under way needs", LIVE,
           "s.rev < t.rev))", "s.rev > t.rev))", ("test_live",)),
    Mutant("held-inverted", "NOT too much: pairs of living importers are taken, those of dead ones are not", STATES,
           "(SELECT coalesce(CASE WHEN importer_id IN ({live})",
           "(SELECT coalesce(CASE WHEN importer_id NOT IN ({live})", ("test_claims",)),
    Mutant("projects-side-by-side", "list not used: two projects of a database read one account at once", STATES,
           'sql.SQL(", ").join(held_elsewhere)', 'sql.SQL("NULL")', ("test_claims", "test_evidence")),
    Mutant("claim-without-turns", "lock forgotten: two importers may claim one pair at the same moment", STATES,
           '            await cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", (LOCK_CLASS,))\n', "",
           ("test_claims", "test_evidence")),
    Mutant("reset-leaves-pages", "statement forgotten: page rows outlive a reset", "store/restore.py",
           "        connection.execute(pages_of(table), (gone,))\n", "", ("test_service", "test_evidence")),
    Mutant("enqueue-takes-running", "condition too wide: a pair that is being imported becomes pending", QUEUE,
           "s.status = 'failed' OR (s.status = 'completed' AND %(refresh)s)",
           "s.status <> 'completed' OR %(refresh)s", ("test_queue", "test_queue_api", "test_service")),
    Mutant("queued-refresh-ignored", "and for or: a refresh that the queue asked for is not made", STATES,
           'row.pop("wants_refresh") or refresh', 'row.pop("wants_refresh") and refresh',
           ("test_queue", "test_queue_api", "test_service")),
    Mutant("resumes-what-is-held", "condition left out: --resume names pairs that others are working on", QUEUE,
           "WHERE status <> 'completed'\"\n            \" AND (importer_id IS NULL OR importer_id NOT IN ({live}))",
           "WHERE status <> 'completed'\"\n            \"", ("test_claims", "test_service")),
    Mutant("lock-not-taken-again", "condition inverted: a lost session does not hold its claims again", CLAIMS,
           "        if self.importer_id:\n            await self._states.hold_importer",
           "        if not self.importer_id:\n            await self._states.hold_importer",
           ("test_claims", "test_database_trouble")),
    Mutant("claims-not-given-back", "condition inverted: an interrupted import keeps its pairs", CLAIMS,
           "            if self.importer_id:\n                await self._session.run",
           "            if not self.importer_id:\n                await self._session.run", ("test_claims",)),
    Mutant("one-try-more", "off by one: a failing pair is tried once more than PARITY_RETRY_ATTEMPTS says",
           RETRY_POLICY, "attempts < settings.retry_attempts", "attempts <= settings.retry_attempts",
           ("test_errors_and_retries",)),
    Mutant("place-lost-at-the-end", "condition left out: a list that has ended begins at its start again", DISCOVERIES,
           "        cursor=following or position.cursor,\n", "        cursor=following,\n", ("test_discovery",)),
    Mutant("sorted-list-gone-on-with", "condition left out: new accounts in the middle of a list are never met",
           DISCOVERIES, " AND (is_sorted OR began_at < now()", " AND (began_at < now()", ("test_discovery",)),
    Mutant("passed-with-fewer", "condition left out: whoever was passed with fewer collections is not met again",
           DISCOVERIES, " OR NOT wanted @> %(wanted)s", "", ("test_discovery",)),
    Mutant("place-by-itself", "two transactions for one: the accounts of a page, and the place behind it", DISCOVERIES,
           "    ordered = [position.last_did, *dids]\n",
           "    conn.execute(\"COMMIT; BEGIN\")\n    ordered = [position.last_did, *dids]\n", ("test_discovery",)),
    Mutant("list-read-twice", "lock forgotten: two calls read a list at the same time", DISCOVERY,
           "        hold_list(conn, self._table, *self._key)\n", "", ("test_discovery",)),
    Mutant("page-taken-twice", "question forgotten: a page whose commit was not heard of is taken again", DISCOVERY,
           "            if not (tried and has_moved_on(conn, position)):\n", "            if True:\n",
           ("test_discovery",)),
    Mutant("inactive-queued", "condition left out: accounts that their server calls deactivated are queued", DISCOVERY,
           " for account in page.accounts if account.status == \"active\"]", " for account in page.accounts]",
           ("test_discovery",)),
    Mutant("nobody-new-for-ever", "counter never grows: a list without an end is read for ever", DISCOVERY,
           "        self._barren = 0 if fresh else self._barren + 1\n", "        self._barren = 0\n",
           ("test_discovery",)),
    Mutant("old-host-confirms", "condition left out: the host that an account has left says that it is unchanged",
           FRESHNESS, "AND i.pds = %(host)s AND {IS_KNOWN}", "AND {IS_KNOWN}", ("test_freshness",)),
    Mutant("confirmed-by-any-host", "condition left out: a copy of one host is confirmed by the list of another",
           FRESHNESS, "s.status = 'completed' AND s.pds = %(host)s AND s.rev = u.rev",
           "s.status = 'completed' AND s.rev = u.rev", ("test_freshness",)),
    Mutant("confirmed-by-the-past", "equal or less: a revision that went back confirms a copy", FRESHNESS,
           "AND s.rev = u.rev AND", "AND s.rev >= u.rev AND", ("test_freshness",)),
    Mutant("confirmed-with-failed", "condition left out: a copy that failed in part is confirmed", FRESHNESS,
           " AND s.records_failed = 0\"", "\"", ("test_freshness",)),
    Mutant("gone-confirmed", "condition left out: an account that its host calls deactivated is confirmed", FRESHNESS,
           "u.is_active AND s.status = 'completed'", "s.status = 'completed'", ("test_freshness",)),
    Mutant("contradiction-passes", "case forgotten: a later page that shows another revision changes nothing",
           FRESHNESS,
           "\" OR (s.confirmed_at >= %(began)s AND (NOT u.is_active OR u.rev IS DISTINCT FROM s.rev)))\"", "\")\"",
           ("test_freshness",)),
    Mutant("endless-list-of-a-host", "condition left out: a host's list may cost more than its accounts",
           "importing/freshness.py", "if reading.pages >= reading.most_pages:", "if False:", ("test_freshness",)),
)  # fmt: skip

REASONS: dict[str, str] = {
    "new-walk-unmarked": "the first page of the new walk replaces those rows by their numbers, and what failed earlier"
    " is dropped by what the walk saw",
}
"""Why a fault that no test notices may stay so."""


def planted(mutant: Mutant, root: Path) -> str:
    """The file with the fault in it.

    Raises:
        ValueError: the text is not there exactly once.
    """
    text = (root / "parity_dagster" / mutant.file).read_text()
    if (count := text.count(mutant.old)) != 1:
        raise ValueError(f"{mutant.name}: its text stands {count} times in {mutant.file}; it has to be once")
    return text.replace(mutant.old, mutant.new)


def check() -> list[str]:
    """Sentences about faults that cannot be planted."""
    problems = []
    for mutant in MUTANTS:
        try:
            planted(mutant, ROOT)
        except ValueError as exc:
            problems.append(str(exc))
        problems += [f"{mutant.name}: there is no {name}" for name in mutant.tests if not _test_file(name)]
    return problems


def _test_file(name: str) -> str:
    """Where a file of tests lies, below the folder of all of them; an empty text if nowhere."""
    found = [path.relative_to(TESTS).as_posix() for path in TESTS.rglob(f"{name}.py")]
    return found[0] if found else ""


def run_tests(tree: Path, tests: Iterable[str]) -> str | None:
    """The first of some tests or files of tests that fails, `TOO_LONG`, or None if all pass."""
    files = [f"parity_dagster_tests/{test}" for test in tests]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--timeout", "120", "-p", "no:cacheprovider", *files]
    command += ["-m", "not processes and (long or not long)"]  # long tests run where they are named
    try:
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return TOO_LONG
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) parity_dagster_tests/(.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return found[1]


def try_mutant(mutant: Mutant, tree: Path) -> str | None:
    """Which test notices the fault; None if none does."""
    target = tree / "parity_dagster" / mutant.file
    sound = target.read_text()
    target.write_text(planted(mutant, tree))
    try:
        rest = [name for name in WIDER if name not in mutant.tests]
        by = None
        for names in (mutant.tests, rest):
            by = by or run_tests(tree, map(_test_file, names))
    finally:
        target.write_text(sound)
    if by is not None and by != TOO_LONG and run_tests(tree, [by]) is not None:
        raise RuntimeError(f"{by} fails without any fault, too; mend that first")
    return by


def copy_tree(folder: Path) -> Path:
    """A copy of what git knows of the tree, with what was changed since."""
    tree = folder / "tree"
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    return tree


def as_page(results: dict[str, str | None]) -> str:
    """docs/mutations.md."""
    tried = [mutant for mutant in MUTANTS if mutant.name in results]
    noticed = sum(results[mutant.name] is not None for mutant in tried)
    lines = [
        "# Faults that the tests notice",
        "",
        "`scripts/mutate.py` plants small faults in a copy of the tree, one at a time, each a slip that a person",
        "makes, and runs the tests that ought to notice. The table says which test did first; others may, too.",
        f"It is written by `python scripts/mutate.py --write`. {noticed} of {len(tried)} faults are noticed.",
        "",
        "| fault | in | slip | noticed by |",
        "|---|---|---|---|",
    ]
    for mutant in tried:
        by = results[mutant.name]
        shown = f"`{by}`" if by else f"none: {REASONS.get(mutant.name, 'not explained yet')}"
        lines.append(f"| {mutant.name} | `{mutant.file}` | {mutant.slip} | {shown} |")
    return "\n".join(lines).replace("|none", "| none") + "\n"


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only these faults")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    if problems := check():
        print(*problems, sep="\n")
        return 1
    if options.check:
        print(f"all {len(MUTANTS)} faults can be planted")
        return 0
    kept: Path | None = options.results
    results: dict[str, str | None] = json.loads(kept.read_text()) if kept and kept.exists() else {}
    with tempfile.TemporaryDirectory(prefix="parity-mutants-") as folder:
        tree = copy_tree(Path(folder))
        for mutant in MUTANTS:
            if mutant.name in results or (options.names and mutant.name not in options.names):
                continue
            begun = time.monotonic()
            results[mutant.name] = try_mutant(mutant, tree)
            print(
                f"{mutant.name}: {results[mutant.name] or 'NOT NOTICED'} ({time.monotonic() - begun:.0f} s)", flush=True
            )
            if kept:
                kept.write_text(json.dumps(results, indent=1))
    if options.write:
        PAGE.write_text(as_page(results))
    return int(any(by is None and name not in REASONS for name, by in results.items()))


if __name__ == "__main__":
    sys.exit(main())
