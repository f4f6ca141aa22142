"""What must be true: after each move, and once everything has calmed down.

The truth is the network's own. In between, an import may not have got to a record yet, but what the table holds it
may not lose, invent, or bring back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from parity_dagster.models import ImportResult, ImportState, ImportStatus, Pair
from parity_dagster.sample_network import POST
from parity_dagster_tests.importing.network_model.project import Project
from parity_dagster_tests.importing.network_model.world import World
from parity_dagster_tests.imports import loads

Table = dict[Pair, dict[str, tuple[str | None, Any, bool]]]
"""pair → rkey → cid, value, active."""
PASSES = 2
"""Refreshes until a pair is known to equal the network: the first may go on with a walk of long ago."""


class Oracle:
    """Compares table and network."""

    def __init__(self, world: World, projects: Sequence[Project], conn: psycopg.Connection) -> None:
        self._world = world
        self._projects = projects
        self._conn = conn
        self._held: dict[tuple[Pair, str], int] = {}
        """Version of each record at the last look."""
        self._passes: Counter[Pair] = Counter()
        self._silent: Counter[Pair] = Counter()
        """Silent changes before the first of these passes."""
        self.looks = 0
        self.equalities = 0

    def note_refresh(self, results: Iterable[ImportResult], silent: Counter[Pair], dids_mute: set[str]) -> None:
        """Take note of a refresh that ran to its end.

        Args:
            results: of all pairs.
            silent: silent changes of each pair when it began.
            dids_mute: accounts whose host did not tell its revision, before or after.
        """
        for result in results:
            pair = Pair(result.did, result.collection)
            if result.completed and pair.did not in dids_mute and silent[pair] == self._world.silent[pair]:
                if silent[pair] != self._silent[pair]:
                    self._passes[pair] = 0
                self._silent[pair] = silent[pair]
                self._passes[pair] += 1

    def is_followed(self, pair: Pair) -> bool:
        """Whether table and network must be equal: it was read since the last change that no event told of."""
        return (
            self._passes[pair] >= PASSES
            and self._silent[pair] == self._world.silent[pair]
            and not self._world.events[pair.did]
            and pair.did not in self._world.ever_lied
        )

    # I4
    def look(self) -> None:
        """Check what holds at any moment at which nobody is writing."""
        self.looks += 1
        table = self._read()
        held: dict[tuple[Pair, str], int] = {}
        for pair, rows in table.items():
            past = self._world.history[pair]
            for rkey, (cid, _, is_active) in rows.items():
                known = [number for number, version in enumerate(past.get(rkey, ())) if version.cid == cid]
                assert known, f"{pair} {rkey}: the network never showed version {cid}"
                held[pair, rkey] = known[-1]
                assert is_active or pair.did in self._world.ever_inactive, f"{pair} {rkey} is not shown"
        self._check_nothing_is_lost(held)
        self._held = held
        for project in self._projects:
            if any(project.told.values()):
                self._check_order(project, held)
            for pair in project.pairs():
                if self.is_followed(pair):
                    self._check_equal(pair, table.get(pair, {}), project)
            if not self._world.has_firehose:
                self._check_counts(project, table)

    # I1
    def _check_nothing_is_lost(self, held: dict[tuple[Pair, str], int]) -> None:
        for key in self._held.keys() - held.keys():
            pair, rkey = key
            if pair.did in self._world.ever_lied and any((pair, rkey) in each.delivered for each in self._projects):
                continue  # a host whose revisions are ahead makes its own later records look old
            past = self._world.history[pair][rkey][self._held[key] :]
            assert any(version.may_be_absent for version in past), (
                f"{pair} {rkey} is lost: {len(self._held.keys() - held.keys())} rows fewer, without a deletion on the"
                f" network; {self._states(pair)}"
            )

    # I7, I8
    def _check_order(self, project: Project, held: dict[tuple[Pair, str], int]) -> None:
        for (pair, rkey), number in project.delivered.items():
            if pair.did in self._world.ever_lied:
                continue
            found = held.get((pair, rkey))
            assert found is None or found >= number, (
                f"{pair} {rkey}: version {found} came back after the event of version {number}; {self._states(pair)}"
            )

    def _check_equal(self, pair: Pair, rows: dict[str, tuple[str | None, Any, bool]], project: Project) -> None:
        truth = self._world.truth(pair, is_strict=project.is_strict)
        found = {rkey: (cid, value) for rkey, (cid, value, _) in rows.items()}
        assert found == truth, self._difference(pair, found, truth)
        self.equalities += 1

    # I9
    def _check_counts(self, project: Project, table: Table) -> None:
        """Without live events, a complete pair counts what is there."""
        failed = self._failed()
        query = sql.SQL("SELECT did, collection, records_synced, records_failed FROM {} WHERE status = 'completed'")
        for did, nsid, *found in self._conn.execute(query.format(sql.Identifier(project.settings.state_table))):
            pair = Pair(did, nsid)
            there = [len(table.get(pair, ())), failed[pair]]
            assert found == there, f"{pair}: stored and failed are {there}, counted {found}; {self._states(pair)}"

    def check_end(self, project: Project) -> None:
        """Check what holds after everything was mended and read again."""
        table = self._read()
        with project.service() as service:
            states = {state.pair: state for state in service.find_states()}
        failed = self._failed()
        for pair in project.pairs():
            rows = table.get(pair, {})
            self._check_equal(pair, rows, project)
            assert all(is_active for _, _, is_active in rows.values()), pair
            state = states[pair]
            assert state.status is ImportStatus.COMPLETED
            total = self._world.entries(pair)
            skipped = self._world.skipped(pair)
            found = (state.records_synced, state.records_skipped, state.records_failed)
            assert found == (len(rows), skipped, total - len(rows) - skipped), f"{pair} of {total}: {state}"
            assert state.records_failed == failed[pair], f"{pair}: {failed[pair]} failed records; {state}"

    def check_nothing_is_left(self) -> None:
        """Check that no trace of the work is left in the tables, and no row of anybody else."""
        ours = {pair for project in self._projects for pair in project.pairs()}
        assert self._read().keys() <= ours
        for table in ("parity_walk_pages", "parity_importers"):
            assert self._conn.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
        if self._world.has_mapper:
            made = self._conn.execute("SELECT did, rkey, version FROM model_posts ORDER BY 1, 2").fetchall()
            stored = self._conn.execute(
                "SELECT did, rkey, cid FROM atproto_records WHERE collection = %s ORDER BY 1, 2", (POST,)
            ).fetchall()
            assert made == stored, "the mapper's table follows the records"

    def _read(self) -> Table:
        table: Table = {}
        for did, collection, rkey, cid, value, active in self._conn.execute(
            "SELECT did, collection, rkey, cid, value::text, active FROM atproto_records"
        ):
            table.setdefault(Pair(did, collection), {})[rkey] = (cid, loads(value), active)
        return table

    def _failed(self) -> Counter[Pair]:
        rows = self._conn.execute("SELECT did, collection, count(*) FROM parity_failed_records GROUP BY 1, 2")
        return Counter({Pair(did, nsid): count for did, nsid, count in rows})

    def _states(self, pair: Pair) -> list[ImportState]:
        found = []
        for project in self._projects:
            with project.service() as service:
                found += [state for state in service.find_states(did=pair.did) if state.collection == pair.collection]
        return found

    def _difference(self, pair: Pair, found: dict[str, Any], truth: dict[str, Any]) -> str:
        wrong = sorted(rkey for rkey in found.keys() | truth.keys() if found.get(rkey) != truth.get(rkey))
        rows = self._conn.execute(
            "SELECT rkey, cid, rev, active, first_seen_at, updated_at FROM atproto_records"
            " WHERE did = %s AND collection = %s AND rkey = ANY(%s)",
            (*pair, wrong),
        ).fetchall()
        missing, extra = sorted(truth.keys() - found.keys()), sorted(found.keys() - truth.keys())
        return (
            f"{pair}: {len(wrong)} wrong of {len(truth)}; missing {missing}; extra {extra}; rows {rows};"
            f" versions {[self._world.history[pair][rkey] for rkey in wrong]}; {self._states(pair)}"
        )
