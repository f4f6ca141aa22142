"""A network that changes and fails at random, importers that come, go and are killed: in the end, table = network.

Hypothesis draws what happens next and prints the steps of a failure (issue 3, "What must show").
`pytest -m long` takes many more steps.
"""

from __future__ import annotations

import logging
import multiprocessing
import random
import threading
import time
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, note
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from parity_dagster.importing.events import ImportCompleted, ImportFailed, ImportProgress
from parity_dagster.importing.models import ImportStatus, Pair
from parity_dagster.importing.service import ImportService
from parity_dagster.sample_network import DIALECTS, LIKE, ODD_KINDS, POST, SampleNetwork, run_in_thread
from parity_dagster.settings import Settings
from parity_dagster_tests.imports import listed, loads, settings_for

NSIDS = (POST, LIKE)
HOSTS = 3
MOST_ACCOUNTS = 8
CHANGES = (
    "add_account", "write", "write", "write_odd", "update", "update", "delete", "delete_everything", "migrate",
    "set_status", "disturb", "disturb", "disturb_lookups", "settle_down", "toggle_host",
)  # fmt: skip
TABLES = (
    "atproto_records, parity_import_states, parity_walk_pages, parity_failed_records, parity_identities,"
    " parity_importers, parity_announcements, parity_tombstones"
)
Changes = list[tuple[str, int]]
CHANGE_LISTS = st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 10**6)), min_size=5, max_size=30)
ODD = sorted(name for name, kind in ODD_KINDS.items() if kind.storable is not None and name not in ("wide", "big"))
FAULTS: list[dict[str, Any]] = [
    {"kind": "503"}, {"kind": "500"}, {"kind": "cut"}, {"kind": "reset"}, {"kind": "html"}, {"kind": "truncated-json"},
    {"kind": "long-length"}, {"kind": "bad-utf8"}, {"kind": "429", "seconds": 0},
    {"kind": "refuse-cursor", "with_cursor": True}, {"kind": "404"},
    {"kind": "400", "message": "Could not find repo: x"}, {"kind": "latency", "seconds": 0.05},
]  # fmt: skip

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["parity_dagster.importing.pipeline", "parity_dagster.atproto.http"])


def import_all(settings: Settings, pairs: list[tuple[str, str]], refresh: bool, begun: Any) -> None:
    """What the processes do that are killed."""
    logging.disable()
    with ImportService(settings, report=False) as service:
        service.import_pairs([Pair(*pair) for pair in pairs], refresh=refresh, on_event=lambda event: begun.set())


class Stopped(BaseException):
    """What Ctrl-C does."""


class NetworkMachine(RuleBasedStateMachine):
    """The network is the model; what the importer has stored must equal it in the end."""

    base: Settings
    steps = 0
    imports = 0
    kills = 0

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.down: set[str] = set()

    # What the network does.

    @initialize(
        dialects=st.lists(st.sampled_from(sorted(DIALECTS)), min_size=HOSTS, max_size=HOSTS), size=st.integers(2, 20)
    )
    def start(self, dialects: list[str], size: int) -> None:
        self.network = SampleNetwork(hosts=HOSTS)
        self.dialects = {f"pds-{number}": dialect for number, dialect in enumerate(dialects, 1)}
        running = self.stack.enter_context(run_in_thread(self.network))
        self.settings = settings_for(self.base, running, page_size=size, request_timeout=10.0, max_page_bytes=2**20)
        assert self.base.database_url is not None
        self.conn = psycopg.connect(self.base.database_url.get_secret_value(), autocommit=True)
        self.stack.callback(self.conn.close)
        self.conn.execute(f"TRUNCATE {TABLES}")
        self.calm()
        for number in range(3):
            self.network.add_account({POST: 7 * number, LIKE: 25}, host=f"pds-{number % HOSTS + 1}")

    def calm(self) -> None:
        self.network.behave_normally()
        for name, dialect in self.dialects.items():
            self.network.behave(host=name, dialect=dialect)

    @invariant()
    def count_steps(self) -> None:
        type(self).steps += 1

    def network_changes(self, changes: Changes) -> None:
        for name, seed in changes:
            getattr(self, name)(random.Random(seed))
            type(self).steps += 1

    def any_pair(self, rng: random.Random) -> Pair:
        return Pair(rng.choice(self.network.dids), rng.choice(NSIDS))

    def add_account(self, rng: random.Random) -> None:
        if len(self.network.accounts) < MOST_ACCOUNTS:
            counts = {POST: rng.randrange(45), LIKE: rng.choice([0, 1, 20, 25])}
            self.network.add_account(counts, host=f"pds-{rng.randint(1, HOSTS)}")

    def write(self, rng: random.Random) -> None:
        pair = self.any_pair(rng)
        for _ in range(rng.randint(1, 12)):
            self.network.put_record(*pair)

    def write_odd(self, rng: random.Random) -> None:
        self.network.add_odd(*self.any_pair(rng), [rng.choice(ODD)])

    def update(self, rng: random.Random) -> None:
        did, nsid = self.any_pair(rng)
        rkeys = sorted(self.network.records(did, nsid).keys() - self.network.odd_records(did, nsid).keys())
        if rkeys:
            self.network.put_record(did, nsid, {"text": f"changed {time.monotonic_ns()}"}, rkey=rng.choice(rkeys))

    def delete(self, rng: random.Random) -> None:
        pair = self.any_pair(rng)
        if rkeys := list(self.network.records(*pair)):
            self.network.delete_record(*pair, rng.choice(rkeys))

    def delete_everything(self, rng: random.Random) -> None:
        did, nsid = self.any_pair(rng)
        for rkey in list(self.network.records(did, nsid)):
            self.network.delete_record(did, nsid, rkey)

    def migrate(self, rng: random.Random) -> None:
        did, host = rng.choice(self.network.dids), f"pds-{rng.randint(1, HOSTS)}"
        if self.network.accounts[did].host.name != host:
            self.network.migrate(did, host, old=rng.choice(["deactivated", "gone"]))

    def set_status(self, rng: random.Random) -> None:
        status: Any = rng.choice(["active", "active", "deactivated", "takendown", "suspended"])
        self.network.set_status(rng.choice(self.network.dids), status)

    def disturb(self, rng: random.Random) -> None:
        fault = {"method": "listRecords", "skip": rng.randrange(6), "times": rng.randint(1, 3)} | rng.choice(FAULTS)
        self.network.behave(host=f"pds-{rng.randint(1, HOSTS)}", faults=[fault])

    def disturb_lookups(self, rng: random.Random) -> None:
        host, method = rng.choice([("plc", "did"), ("pds-1", "getRepoStatus")])
        self.network.behave(host=host, faults=[{"kind": "503", "method": method, "times": rng.randint(1, 3)}])

    def settle_down(self, rng: random.Random) -> None:
        self.calm()

    def toggle_host(self, rng: random.Random) -> None:
        name = f"pds-{rng.randint(1, HOSTS)}"
        if name in self.down:
            self.network.bring_up_host(name)
            self.down.discard(name)
        elif not self.down:
            self.network.take_down_host(name)
            self.down.add(name)

    # What importers do.

    def pairs(self) -> list[Pair]:
        return [Pair(did, nsid) for did in self.network.dids for nsid in NSIDS]

    @rule(changes=CHANGE_LISTS, refresh=st.booleans())
    def import_everything(self, changes: Changes, refresh: bool) -> None:
        self.network_changes(changes)
        self.run(refresh=refresh)

    @rule(changes=CHANGE_LISTS, refresh=st.booleans(), events=st.integers(1, 12))
    def import_and_interrupt(self, changes: Changes, refresh: bool, events: int) -> None:
        self.network_changes(changes)
        self.run(refresh=refresh, stop_after=events)

    @rule(changes=CHANGE_LISTS, refresh=st.booleans(), seed=st.integers(0, 10**6))
    def import_while_it_changes(self, changes: Changes, refresh: bool, seed: int) -> None:
        self.network_changes(changes)
        rng = random.Random(seed)

        def change() -> None:
            self.write(rng)
            self.delete(rng)
            self.update(rng)

        self.run(refresh=refresh, change=change)

    @rule(changes=CHANGE_LISTS, refresh=st.booleans())
    def import_while_connections_drop(self, changes: Changes, refresh: bool) -> None:
        self.network_changes(changes)
        self.run(
            refresh=refresh,
            change=lambda: self.conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'parity_dagster'"
            ),
        )

    @rule(changes=CHANGE_LISTS, refresh=st.booleans())
    def import_twice_at_once(self, changes: Changes, refresh: bool) -> None:
        self.network_changes(changes)
        threads = [threading.Thread(target=self.run, kwargs={"refresh": refresh}) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @rule(changes=CHANGE_LISTS, refresh=st.booleans(), seconds=st.floats(0, 0.12))
    def import_and_kill(self, changes: Changes, refresh: bool, seconds: float) -> None:
        self.network_changes(changes)
        begun = processes.Event()
        process = processes.Process(target=import_all, args=(self.settings, self.pairs(), refresh, begun))
        process.start()
        begun.wait(5)
        time.sleep(seconds)
        process.kill()
        process.join()
        type(self).kills += 1

    @rule(changes=CHANGE_LISTS)
    def resume_all(self, changes: Changes) -> None:
        self.network_changes(changes)
        with ImportService(self.settings, report=False) as service:
            service.resume_all()

    @rule(changes=CHANGE_LISTS, number=st.integers(0, MOST_ACCOUNTS))
    def reset(self, changes: Changes, number: int) -> None:
        self.network_changes(changes)
        with ImportService(self.settings, report=False) as service:
            service.reset_user(self.network.dids[number % len(self.network.dids)])

    def run(self, *, refresh: bool, stop_after: int = 0, change: Any = None) -> list[Any]:
        type(self).imports += 1
        endings: list[Pair] = []
        seen = 0

        def on_event(event: Any) -> None:
            nonlocal seen
            seen += 1
            if isinstance(event, ImportCompleted | ImportFailed):
                endings.append(Pair(event.did, event.collection))
            if isinstance(event, ImportProgress) and change is not None and seen == 3:
                change()
            if stop_after and seen >= stop_after:
                raise Stopped

        pairs = self.pairs()
        with ImportService(self.settings, report=False) as service:
            try:
                results = service.import_pairs(pairs, refresh=refresh, on_event=on_event)
            except Stopped:
                return []
        assert sorted(endings) == sorted(pairs), "one ending for each pair"
        return results

    # What must be true.

    def teardown(self) -> None:
        try:
            if hasattr(self, "network"):
                self.finish()
        finally:
            self.stack.close()

    def finish(self) -> None:
        """Everything is repaired; a few imports later the table must equal the network."""
        for name in self.down:
            self.network.bring_up_host(name)
        self.calm()
        for did in self.network.dids:
            self.network.set_status(did, "active")
        deadline = time.monotonic() + 30
        complete = 0
        # Twice: a walk that was begun before some change goes on where it stopped, and the revision that it notes
        # makes the next refresh read the list again.
        while complete < 2:
            results = self.run(refresh=True)
            if all(result.completed for result in results):
                complete += 1
                continue
            note(str([result for result in results if not result.completed]))
            assert time.monotonic() < deadline, [result.error for result in results if result.error]
            time.sleep(0.05)
        with ImportService(self.settings, report=False) as service:
            states = {state.pair: state for state in service.find_states()}
            failed = service.find_failed_records()
        rows: dict[Pair, dict[str, Any]] = {}
        for did, nsid, rkey, cid, value in self.conn.execute(
            "SELECT did, collection, rkey, cid, value::text FROM atproto_records WHERE active"
        ):
            rows.setdefault(Pair(did, nsid), {})[rkey] = (cid, loads(value))
        for pair in self.pairs():
            truth = listed(self.network, *pair)
            state, found = states[pair], rows.pop(pair, {})
            assert found == truth, self.difference(pair, found, truth, state)
            assert state.status is ImportStatus.COMPLETED
            assert state.records_synced == len(truth), pair
            assert state.records_failed == sum((record.did, record.collection) == pair for record in failed)
            total = len(self.network.records(*pair))
            assert state.records_synced + state.records_failed + state.records_skipped == total, pair
        assert not rows, "nothing of anybody else"
        for table in ("parity_walk_pages", "parity_importers"):
            (count,) = self.conn.execute(f"SELECT count(*) FROM {table}").fetchone() or (None,)
            assert count == 0, f"{table} is empty when all is done"

    def difference(self, pair: Pair, found: dict[str, Any], truth: dict[str, Any], state: Any) -> str:
        wrong = {rkey for rkey in found.keys() | truth.keys() if found.get(rkey) != truth.get(rkey)}
        rows = self.conn.execute(
            "SELECT rkey, cid, rev, active, first_seen_at, updated_at FROM atproto_records"
            " WHERE did = %s AND collection = %s AND rkey = ANY(%s)",
            (*pair, list(wrong)),
        ).fetchall()
        missing, extra = sorted(truth.keys() - found.keys()), sorted(found.keys() - truth.keys())
        return f"{pair}: {len(wrong)} wrong of {len(truth)}; missing {missing}; extra {extra}; rows {rows}; {state}"


def explore(settings: Settings, examples: int, steps: int) -> None:
    machine = type("Machine", (NetworkMachine,), {"base": settings, "steps": 0, "imports": 0, "kills": 0})
    run_state_machine_as_test(
        machine,
        settings=profile(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # a failure is printed as it was found: shrinking takes many times as long
            derandomize=True,
            database=None,
        ),
    )
    print(f"{machine.steps} steps, {machine.imports} imports, {machine.kills} kills")  # type: ignore[attr-defined]


@pytest.mark.timeout(600)
def test_whatever_happens_the_table_equals_the_network_in_the_end(settings: Settings) -> None:
    explore(settings, examples=6, steps=20)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_whatever_happens_for_hours_the_table_equals_the_network_in_the_end(settings: Settings) -> None:
    explore(settings, examples=500, steps=50)
