"""A network that changes and fails at random, importers that come, go and are killed: in the end, table = network.

Hypothesis draws what happens next and prints the steps of a failure (issue 3, "What must show").
`pytest -m long` takes many more steps.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, note
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from parity_dagster_tests.imports import listed, loads, settings_for

from parity_dagster.importing.events import ImportCompleted, ImportFailed, ImportProgress
from parity_dagster.importing.models import ImportStatus, Pair
from parity_dagster.importing.service import ImportService
from parity_dagster.sample_network import DIALECTS, LIKE, ODD_KINDS, POST, SampleNetwork, run_in_thread
from parity_dagster.settings import Settings

NSIDS = (POST, LIKE)
HOSTS = 3
TABLES = (
    "atproto_records, parity_import_states, parity_walk_pages, parity_failed_records, parity_identities,"
    " parity_importers, parity_announcements, parity_tombstones"
)
ODD = sorted(name for name, kind in ODD_KINDS.items() if kind.storable is not None and name not in ("wide", "big"))
FAULTS = [
    {"kind": "503"}, {"kind": "500"}, {"kind": "cut"}, {"kind": "reset"}, {"kind": "html"}, {"kind": "truncated-json"},
    {"kind": "long-length"}, {"kind": "bad-utf8"}, {"kind": "429", "seconds": 0}, {"kind": "refuse-cursor", "with_cursor": True},
    {"kind": "404"}, {"kind": "400", "message": "Could not find repo: x"}, {"kind": "latency", "seconds": 0.05},
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

    accounts = Bundle("accounts")

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
        self.settings = settings_for(self.base, running, page_size=size, request_timeout=3.0, max_page_bytes=2**20)
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

    @rule(target=accounts, posts=st.integers(0, 45), likes=st.integers(0, 25), host=st.integers(1, HOSTS))
    def add_account(self, posts: int, likes: int, host: int) -> str:
        return self.network.add_account({POST: posts, LIKE: likes}, host=f"pds-{host}")

    @rule(did=accounts, nsid=st.sampled_from(NSIDS), count=st.integers(1, 12))
    def write(self, did: str, nsid: str, count: int) -> None:
        for _ in range(count):
            self.network.put_record(did, nsid)

    @rule(did=accounts, nsid=st.sampled_from(NSIDS), kind=st.sampled_from(ODD))
    def write_odd(self, did: str, nsid: str, kind: str) -> None:
        self.network.add_odd(did, nsid, [kind])

    @rule(
        did=accounts,
        nsid=st.sampled_from(NSIDS),
        at=st.integers(0, 60),
        what=st.sampled_from(["update", "delete", "spoil"]),
    )
    def change(self, did: str, nsid: str, at: int, what: str) -> None:
        rkeys = list(self.network.records(did, nsid))
        if not rkeys:
            return
        rkey = rkeys[at % len(rkeys)]
        if what == "delete":
            self.network.delete_record(did, nsid, rkey)
        elif rkey not in self.network.odd_records(did, nsid):
            self.network.put_record(did, nsid, {"text": f"changed {time.monotonic_ns()}"}, rkey=rkey)

    @rule(did=accounts)
    def delete_everything(self, did: str) -> None:
        for rkey in list(self.network.records(did, LIKE)):
            self.network.delete_record(did, LIKE, rkey)

    @rule(did=accounts, host=st.integers(1, HOSTS), old=st.sampled_from(["deactivated", "gone"]))
    def migrate(self, did: str, host: int, old: Any) -> None:
        if self.network.accounts[did].host.name != f"pds-{host}":
            self.network.migrate(did, f"pds-{host}", old=old)

    @rule(did=accounts, status=st.sampled_from(["active", "active", "deactivated", "takendown", "suspended"]))
    def set_status(self, did: str, status: Any) -> None:
        self.network.set_status(did, status)

    @rule(host=st.integers(1, HOSTS), fault=st.sampled_from(FAULTS), skip=st.integers(0, 5), times=st.integers(1, 4))
    def disturb(self, host: int, fault: dict[str, Any], skip: int, times: int) -> None:
        one = {"method": "listRecords", "skip": skip, "times": times} | fault
        self.network.behave(host=f"pds-{host}", faults=[one])

    @rule(method=st.sampled_from(["did", "getRepoStatus"]), times=st.integers(1, 3))
    def disturb_lookups(self, method: str, times: int) -> None:
        self.network.behave(
            host="plc" if method == "did" else "pds-1", faults=[{"kind": "503", "method": method, "times": times}]
        )

    @rule()
    def settle_down(self) -> None:
        self.calm()

    @rule(host=st.integers(1, HOSTS))
    def toggle_host(self, host: int) -> None:
        name = f"pds-{host}"
        if name in self.down:
            self.network.bring_up_host(name)
            self.down.discard(name)
        else:
            self.network.take_down_host(name)
            self.down.add(name)

    # What importers do.

    def pairs(self) -> list[Pair]:
        return [Pair(did, nsid) for did in self.network.dids for nsid in NSIDS]

    @rule(refresh=st.booleans())
    def import_everything(self, refresh: bool) -> None:
        self.run(refresh=refresh)

    @rule(refresh=st.booleans(), events=st.integers(1, 12))
    def import_and_interrupt(self, refresh: bool, events: int) -> None:
        self.run(refresh=refresh, stop_after=events)

    @rule(did=accounts, refresh=st.booleans(), nsid=st.sampled_from(NSIDS))
    def import_while_it_changes(self, did: str, refresh: bool, nsid: str) -> None:
        self.run(refresh=refresh, change=lambda: (self.write(did, nsid, 2), self.change(did, nsid, 3, "delete")))

    @rule(refresh=st.booleans())
    def import_while_connections_drop(self, refresh: bool) -> None:
        self.run(
            refresh=refresh,
            change=lambda: self.conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'parity_dagster'"
            ),
        )

    @rule(refresh=st.booleans())
    def import_twice_at_once(self, refresh: bool) -> None:
        threads = [threading.Thread(target=self.run, kwargs={"refresh": refresh}) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @rule(refresh=st.booleans(), seconds=st.floats(0, 0.12))
    def import_and_kill(self, refresh: bool, seconds: float) -> None:
        begun = processes.Event()
        process = processes.Process(target=import_all, args=(self.settings, self.pairs(), refresh, begun))
        process.start()
        begun.wait(5)
        time.sleep(seconds)
        process.kill()
        process.join()
        type(self).kills += 1

    @rule()
    def resume_all(self) -> None:
        with ImportService(self.settings, report=False) as service:
            service.resume_all()

    @rule(did=accounts)
    def reset(self, did: str) -> None:
        with ImportService(self.settings, report=False) as service:
            service.reset_user(did)

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
        while True:
            results = self.run(refresh=True)
            if all(result.completed for result in results):
                break
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
            assert rows.pop(pair, {}) == truth, pair
            state = states[pair]
            assert state.status is ImportStatus.COMPLETED
            assert state.records_synced == len(truth), pair
            assert state.records_failed == sum((record.did, record.collection) == pair for record in failed)
            total = len(self.network.records(*pair))
            assert state.records_synced + state.records_failed + state.records_skipped == total, pair
        assert not rows, "nothing of anybody else"
        for table in ("parity_walk_pages", "parity_importers"):
            (count,) = self.conn.execute(f"SELECT count(*) FROM {table}").fetchone() or (None,)
            assert count == 0, f"{table} is empty when all is done"


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
    explore(settings, examples=25, steps=80)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_whatever_happens_for_hours_the_table_equals_the_network_in_the_end(settings: Settings) -> None:
    explore(settings, examples=600, steps=100)
