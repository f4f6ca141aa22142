"""What can happen: each move is a method, drawn as often as its weight says."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import Any

import psycopg
from psycopg import sql

from parity_dagster.events import ImportCompleted, ImportFailed, ImportProgress
from parity_dagster.models import ImportResult, Pair
from parity_dagster.sample_network import run_in_thread
from parity_dagster.settings import Settings
from parity_dagster.store.database import migrate
from parity_dagster.store.queue import make_batches, pairs_of_batch
from parity_dagster_tests.forked import start_import
from parity_dagster_tests.importing.network_model import mappers
from parity_dagster_tests.importing.network_model.oracle import PASSES, Oracle
from parity_dagster_tests.importing.network_model.project import Project
from parity_dagster_tests.importing.network_model.world import NSIDS, WRITES, World
from parity_dagster_tests.imports import settings_for

TABLES = (
    "atproto_records, parity_import_states, parity_walk_pages, parity_failed_records, parity_identities,"
    " parity_importers, parity_announcements, parity_tombstones"
)
CALM = 60.0
"""Seconds in which everything must have been read again once nothing fails any more."""
DATABASE_DEFAULTS: tuple[dict[str, str], ...] = (
    {}, {}, {"default_transaction_isolation": "repeatable read"}, {"default_transaction_isolation": "serializable"},
    {"client_encoding": "LATIN1", "timezone": "Asia/Kathmandu", "bytea_output": "escape", "datestyle": "German"},
)  # fmt: skip
"""What the administrator of a database may have set for every session."""

MOVES: dict[str, int] = {}


def move(weight: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a method a move."""

    def register(method: Callable[..., None]) -> Callable[..., None]:
        MOVES[method.__name__] = weight
        return method

    return register


class Stopped(BaseException):
    """What Ctrl-C does."""


@dataclass
class Figures:
    """What was done."""

    histories: int = 0
    moves: int = 0
    changes: int = 0
    imports: int = 0
    pages: int = 0
    interrupts: int = 0
    kills: int = 0
    live_events: int = 0
    queued: int = 0
    resets: int = 0
    retries: int = 0
    looks: int = 0
    equalities: int = 0

    def __str__(self) -> str:
        shown = ", ".join(f"{getattr(self, field.name):,} {field.name.replace('_', ' ')}" for field in fields(self))
        return f"{self.moves + self.changes:,} steps: {shown}"


class History:
    """A network, who imports from it, and what happens to them."""

    def __init__(self, base: Settings, rng: random.Random, figures: Figures) -> None:
        self.figures = figures
        self.stack = ExitStack()
        has_archives = rng.random() < 0.5
        self.world = World(
            rng,
            has_firehose=rng.random() < 0.65,
            has_mapper=rng.random() < 0.4,
            # An archive that is older than what a host has told is not taken, and it would have to be waited for.
            may_lie=rng.random() < 0.3 and not has_archives,
            has_archives=has_archives,
        )
        running = self.stack.enter_context(run_in_thread(self.world.network))
        settings = settings_for(
            base, running, page_size=rng.randint(2, 20), request_timeout=10.0, max_page_bytes=2**20, retry_delay=0.1
        )
        assert base.database_url is not None
        self.conn = psycopg.connect(
            base.database_url.get_secret_value(), autocommit=True, client_encoding="UTF8", options="-c DateStyle=ISO"
        )
        self.stack.callback(self.conn.close)
        of = rng.choice([1, 2])
        self.projects = [Project(self.world, settings, number, of) for number in range(of)]
        self._prepare(rng)
        for project in self.projects:
            self.stack.callback(project.close)
        self.oracle = Oracle(self.world, self.projects, self.conn)

    def __str__(self) -> str:
        return f"{len(self.projects)} projects, database {self.defaults or 'as usual'}, {self.world}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        """Add to the figures what others counted."""
        self.figures.changes += self.world.changes
        self.figures.live_events += sum(sum(project.told.values()) for project in self.projects)
        self.figures.looks += self.oracle.looks
        self.figures.equalities += self.oracle.equalities

    def _prepare(self, rng: random.Random) -> None:
        database = sql.Identifier(self.conn.info.dbname)
        self.conn.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(database))
        self.conn.execute("DROP TABLE IF EXISTS model_states_1, model_posts CASCADE")
        self.conn.execute(f"TRUNCATE {TABLES}")
        for project in self.projects[1:]:
            migrate(project.settings)
        if self.world.has_mapper:
            self.conn.execute(mappers.TABLE)
        self.defaults = rng.choice(DATABASE_DEFAULTS)
        for name, value in self.defaults.items():
            self.conn.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(database, sql.Identifier(name), sql.Literal(value))
            )

    # The network.

    def change(self, rng: random.Random) -> None:
        """What the network does before each move."""
        for _ in range(rng.choice((0, 0, 2, 5, 10, 20))):
            self.world.change(rng)

    @move(3)
    def deliver(self, rng: random.Random) -> None:
        """The consumer of the firehose catches up, or does not."""
        for project in self.projects:
            project.deliver(rng if rng.random() < 0.3 else None)

    # Importing.

    @move(3)
    def import_everything(self, rng: random.Random) -> None:
        self._import(rng)

    @move(3)
    def refresh_everything_twice(self, rng: random.Random) -> None:
        """After which table and network are equal, unless something fails."""
        self.world.calm()
        for project in self.projects:
            for _ in range(2):
                self._import(rng, project, refresh=True)

    @move(4)
    def interrupt(self, rng: random.Random) -> None:
        self._import(rng, stop_after=rng.randint(1, 12))

    @move(4)
    def import_while_it_changes(self, rng: random.Random) -> None:
        """Records change, and are told of, between two pages and while one is on its way."""
        project = rng.choice(self.projects)
        is_over = threading.Event()
        dice = random.Random(rng.random())

        def traffic() -> None:
            for _ in range(dice.randint(5, 40)):
                if is_over.is_set():
                    return
                self.world.change(dice, WRITES)
                if dice.random() < 0.8:
                    project.deliver(dice if dice.random() < 0.2 else None)
                time.sleep(dice.random() * 0.005)

        thread = Thread(traffic)
        try:
            self._import(rng, project)
        finally:
            is_over.set()
            thread.end()

    @move(3)
    def import_while_something_happens(self, rng: random.Random) -> None:
        """A reset, a deactivation and its end, lost connections, some changes: in the middle of an import."""
        project = rng.choice(self.projects)
        did = rng.choice(project.dids)
        self._import(
            rng,
            project,
            happens=rng.choice([self._drop_connections, self._reset, self._suspend, self._write]),
            about=(project, did),
        )

    @move(2)
    def import_twice_at_once(self, rng: random.Random) -> None:
        project, refresh = rng.choice(self.projects), rng.random() < 0.5
        threads = [Thread(lambda: self._import(rng, project, refresh=refresh)) for _ in range(2)]
        for thread in threads:
            thread.end()

    @move(2)
    def kill(self, rng: random.Random) -> None:
        project = rng.choice(self.projects)
        process, begun = start_import(project.settings, project.pairs(), refresh=rng.random() < 0.5)
        begun.wait(20)
        time.sleep(rng.random() * 0.12)
        process.kill()
        process.join()
        self.figures.kills += 1

    @move(3)
    def resume_all(self, rng: random.Random) -> None:
        with rng.choice(self.projects).service() as service:
            service.resume_all()

    # Dagster's queue.

    @move(4)
    def enqueue(self, rng: random.Random) -> None:
        project = rng.choice(self.projects)
        pairs = rng.sample(project.pairs(), rng.randint(1, len(project.pairs())))
        with project.service() as service:
            self.figures.queued += len(service.enqueue(pairs, refresh=rng.random() < 0.7, reread=rng.random() < 0.2))

    @move(4)
    def run_batches(self, rng: random.Random) -> None:
        """What the sensor marks and runs take up, some of them after others, some interrupted."""
        for project in self.projects:
            settings = project.settings
            made = make_batches(self.conn, settings.state_table, settings.collections, size=rng.randint(1, 6), count=9)
            for batch in made:
                pairs = pairs_of_batch(self.conn, settings.state_table, batch)
                stop_after = rng.randint(1, 12) if rng.random() < 0.2 else 0
                self._import(rng, project, refresh=False, pairs=pairs, stop_after=stop_after)

    # People.

    @move(2)
    def reset(self, rng: random.Random) -> None:
        project = rng.choice(self.projects)
        self._reset(project, rng.choice(project.dids))

    @move(2)
    def retry_failed_records(self, rng: random.Random) -> None:
        """Once or twice at once, while events come in."""
        project = rng.choice(self.projects)
        threads = [Thread(lambda: self._retry(project)) for _ in range(rng.randint(1, 2))]
        project.deliver()
        for thread in threads:
            thread.end()

    @move(2)
    def mend_mapper(self, rng: random.Random) -> None:
        """The mapper takes what it refused; that is retried, while the network deletes and updates the same records."""
        project = rng.choice(self.projects)
        if not self.world.has_mapper or not project.is_strict:
            return
        made = self.world.write_refused(rng, 12)
        project.deliver()
        self._import(rng, project, refresh=True)
        project.deliver()
        project.change(is_strict=False)
        threads = [Thread(lambda: self._retry(project)) for _ in range(rng.randint(1, 2))]
        for pair, rkey in rng.sample(made, rng.randint(0, 12)):
            self.world.delete_one(rng, pair, rkey)
            project.deliver()
        for thread in threads:
            thread.end()
        self._retry(project)

    @move(1)
    def change_collections(self, rng: random.Random) -> None:
        rng.choice(self.projects).change(collections=rng.choice([NSIDS, NSIDS[:1], NSIDS[1:], NSIDS]))

    # What happens in the middle of an import.

    def _drop_connections(self, project: Project, did: str) -> None:
        self.conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'parity_dagster'"
        )

    def _reset(self, project: Project, did: str) -> None:
        with project.service() as service:
            service.reset_user(did)
        self.figures.resets += 1

    def _suspend(self, project: Project, did: str) -> None:
        is_active = self.world.network.accounts[did].repo.status == "active"
        self.world.network.set_status(did, "deactivated" if is_active else "active")
        self.world.ever_inactive.add(did)

    def _write(self, project: Project, did: str) -> None:
        for kind in WRITES:
            self.world.change(random.Random(len(self.world.history)), (kind,))

    # Help.

    def _retry(self, project: Project) -> None:
        self.figures.retries += 1
        with project.service() as service:
            service.retry_failed_records()

    def _import(
        self,
        rng: random.Random,
        project: Project | None = None,
        *,
        refresh: bool | None = None,
        pairs: list[Pair] | None = None,
        stop_after: int = 0,
        happens: Callable[[Project, str], None] | None = None,
        about: Any = (),
    ) -> list[ImportResult]:
        project = rng.choice(self.projects) if project is None else project
        pairs = project.pairs() if pairs is None else pairs
        refresh = rng.random() < 0.5 if refresh is None else refresh
        reread = refresh and rng.random() < 0.15
        silent, mute = Counter(self.world.silent), self._mute()
        moments = {rng.randint(1, 6), rng.randint(4, 12)} if happens else ()
        self.figures.imports += 1
        endings: list[Pair] = []
        seen = 0

        def on_event(event: Any) -> None:
            nonlocal seen
            seen += 1
            self.figures.pages += isinstance(event, ImportProgress)
            if isinstance(event, ImportCompleted | ImportFailed):
                endings.append(Pair(event.did, event.collection))
            if happens and seen in moments:
                happens(*about)
            if stop_after and seen >= stop_after:
                raise Stopped

        with project.service() as service:
            try:
                results = service.import_pairs(pairs, refresh=refresh, reread=reread, on_event=on_event)
            except Stopped:
                self.figures.interrupts += 1
                return []
        assert sorted(endings) == sorted(pairs), "one ending for each pair"
        if refresh:
            self.oracle.note_refresh(results, silent, mute | self._mute())
        return results

    def _mute(self) -> set[str]:
        return {did for did in self.world.network.dids if self.world.is_mute(did)}

    # The end.

    def finish(self, rng: random.Random) -> None:
        """Everything is mended; a few imports later the table must equal the network."""
        self.world.bring_up()
        self.world.calm()
        for did in self.world.network.dids:
            self.world.network.set_status(did, "active")
        for project in self.projects:
            project.change(collections=NSIDS)
            project.deliver()
            deadline = time.monotonic() + CALM
            complete = 0
            while complete < PASSES:
                results = self._import(rng, project, refresh=True)
                if all(result.completed for result in results):
                    complete += 1
                    continue
                assert time.monotonic() < deadline, [result.error for result in results if result.error]
                time.sleep(0.05)
        for project in self.projects:
            self.oracle.check_end(project)
        self.oracle.check_nothing_is_left()


class Thread(threading.Thread):
    """One that runs at once, and whose error is raised where its end is awaited."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as exc:  # noqa: BLE001 -- raised in `end`
            self._error = exc

    def end(self) -> None:
        """Wait for it."""
        self.join()
        if self._error is not None:
            raise self._error
