"""Where Dagster keeps its runs, events and partitions: schema `dagster` of the same PostgreSQL.

Stock dagster-postgres opens about three connections per event, because it cannot know how many instances a
process makes. Here all instances of a process share one pool, which makes planning a run over many
partitions several times faster.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

from dagster import DagsterInstance
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import Dialect, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import InvalidatePoolError, ProgrammingError
from sqlalchemy.pool import NullPool

from parity_dagster.dagster_instance.event_log import ParityEventLogStorage
from parity_dagster.dagster_instance.events import batch_by_default
from parity_dagster.dagster_instance.private import (
    DAGSTER_CONFIG_YAML_FILENAME,
    ConfigurableClassData,
    InstanceRef,
    is_dagster_home_set,
)
from parity_dagster.errors import DatabaseError
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store.connecting import check_server, session_settings
from parity_dagster.store.database import sqlalchemy_url
from parity_dagster.store.schema import MIGRATION_LOCK

SCHEMA = "dagster"
TABLES_LOCK = MIGRATION_LOCK + 1  # advisory lock of the process that makes Dagster's tables
# Idle connections kept per process. More are opened when threads need them, as without a pool, and closed
# after use; a limit below the number of threads could only make them wait for each other.
POOL_SIZE = 4
MAX_OVERFLOW = 60
RECYCLE_AFTER = 600  # seconds; shorter than the idle limits of common proxies and firewalls
ASK_AFTER = 30.0  # seconds of rest after which a connection is asked whether it is still there

# Settings of a caller who does not go by the environment; Dagster makes the storage by its class name only.
_settings: ContextVar[Settings | None] = ContextVar("_settings", default=None)
_USED_AT = "parity_used_at"  # in what SQLAlchemy keeps about a connection
_guard = threading.Lock()
_engines: dict[str, Engine] = {}
_known: dict[tuple[str, str, str], set[tuple[str, ...]]] = {}


class ParityStorage(DagsterPostgresStorage):
    """Dagster's storage on the database that `connection_url` decides, with pooled connections.

    Needs no configuration in dagster.yaml, so no URL or password gets into the instance reference that
    Dagster hands to its subprocesses on their command line.
    """

    def __init__(self, settings: Settings, inst_data: ConfigurableClassData | None = None) -> None:
        postgres_url = storage_url(settings)
        with _guard:
            engine = _engines.get(postgres_url)
            if engine is None:
                make_tables(postgres_url)
                engine = _engines[postgres_url] = make_pool(postgres_url)
        super().__init__(postgres_url, should_autocreate_tables=False, inst_data=inst_data)
        self._event_log_storage = ParityEventLogStorage(settings, postgres_url, inst_data)
        # The daemon and the webserver write the planned events of runs, and do not load our definitions.
        batch_by_default()
        # There is no argument for it; each of the three would otherwise open a connection per call.
        self._run_storage._engine = engine
        self._event_log_storage._engine = engine
        self._schedule_storage._engine = engine
        _ask_once(
            postgres_url, self._schedule_storage, "has_instigators_table", "_has_instigators_table",
            "has_secondary_index_table", "has_built_index",
        )  # fmt: skip
        _ask_once(
            postgres_url, self._run_storage, "has_run_stats_index_cols", "has_bulk_actions_selector_cols",
            "has_backfill_id_column", "has_bulk_action_job_name_column", "has_backfill_tags_table", "has_built_index",
        )  # fmt: skip

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """What `config:` of dagster.yaml may hold: nothing."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> ParityStorage:
        """Make the storage when Dagster loads dagster.yaml: the embedded server runs then, and the tables exist."""
        return cls(_settings.get() or load_settings(), inst_data)


def _ask_once(url: str, storage: object, *questions: str) -> None:
    """Ask whether tables, columns and indexes are there until they are, for all instances of a process.

    Dagster asks with each look at a sensor, which was half of what an idle installation asked of the server; a code
    server makes an instance for each look.
    """
    for name in questions:
        known = _known.setdefault((url, type(storage).__name__, name), set())
        setattr(storage, name, _once(getattr(storage, name), known))


def _once(question: Callable[..., bool], known: set[tuple[str, ...]]) -> Callable[..., bool]:
    def answer(*arguments: object) -> bool:
        about = tuple(each for each in arguments if isinstance(each, str))  # and not the connection
        if about not in known and question(*arguments):
            known.add(about)
        return about in known

    return answer


def storage_url(settings: Settings) -> str:
    """The URL of Dagster's part of the database: the schema as search path, and psycopg2, which Dagster needs."""
    url = make_url(sqlalchemy_url(settings))
    given = url.query.get("options", "")
    options = f"{given if isinstance(given, str) else ' '.join(given)} -csearch_path={SCHEMA}".strip()
    return url.update_query_dict({"options": options, "client_encoding": "UTF8"}).render_as_string(hide_password=False)


def parity_instance(settings: Settings | None = None) -> DagsterInstance:
    """The Dagster instance that belongs to this place; used as a context manager, it is closed.

    The same rule as Dagster's own commands: DAGSTER_HOME, else the current folder's dagster.yaml. In any
    other folder an instance on our storage, so that the command line works from everywhere.
    """
    if is_dagster_home_set():
        return DagsterInstance.get()
    settings = settings or load_settings()
    token = _settings.set(settings)
    try:
        return _instance_on(settings)
    finally:
        _settings.reset(token)


def _instance_on(settings: Settings) -> DagsterInstance:
    # Of Dagster's files only the captured output of runs is left, as the storage is PostgreSQL.
    files = settings.home.expanduser().resolve() / "dagster"
    files.mkdir(parents=True, exist_ok=True)
    if (Path.cwd() / DAGSTER_CONFIG_YAML_FILENAME).exists():
        return DagsterInstance.from_ref(InstanceRef.from_dir(str(files), config_dir=str(Path.cwd())))
    storage = {"module": ParityStorage.__module__, "class": ParityStorage.__name__, "config": {}}
    defaults: Any = {"storage": {"custom": storage}, "telemetry": {"enabled": False}}
    return DagsterInstance.from_ref(InstanceRef.from_dir(str(files), overrides=defaults))


def make_tables(url: str) -> None:
    """Make schema and tables if they are missing, one process at a time.

    `dagster dev` starts several processes at once, and Dagster makes its tables without a transaction, so
    another process could see half of them.
    """
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    event.listen(engine, "connect", _begin_session, insert=True)  # before SQLAlchemy asks anything
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": TABLES_LOCK})
            exists = connection.execute(text("SELECT to_regnamespace(:name)"), {"name": SCHEMA}).scalar()
            if exists is None:
                connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
            DagsterPostgresStorage(url)
    except ProgrammingError as exc:
        # insufficient_privilege, or invalid_schema_name: a search path of a schema that the role may not use is empty
        if getattr(exc.orig, "pgcode", None) not in ("42501", "3F000"):
            raise
        raise DatabaseError(
            f"this role may not make, or not use, Dagster's tables (schema {SCHEMA}): let the role that owns the tables"
            " run `parity migrate --dagster`, and grant this one what docs/postgresql.md names"
        ) from None
    finally:
        engine.dispose()


def make_pool(url: str, ask_after: float = ASK_AFTER) -> Engine:
    """Make the connections that all instances of a process share."""
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        pool_size=POOL_SIZE,
        max_overflow=MAX_OVERFLOW,
        pool_recycle=RECYCLE_AFTER,
        pool_use_lifo=True,
    )
    event.listen(engine, "connect", _begin_session, insert=True)  # before SQLAlchemy asks anything
    event.listen(engine, "checkin", _remember_use)
    event.listen(engine, "checkout", partial(_refuse_lost, engine.dialect, ask_after))
    return engine


def _remember_use(connection: Any, record: Any) -> None:
    record.info[_USED_AT] = time.monotonic()


def _refuse_lost(dialect: Dialect, ask_after: float, connection: Any, record: Any, _: Any) -> None:
    """Give nobody a connection that a restart of the server has ended; `connection` is psycopg2's.

    SQLAlchemy's `pool_pre_ping` asks the server before each use, which was two of five transactions of an idle
    installation. But a server that ends a session says so, and nothing else comes while a connection rests, so it is
    asked only if something has come, or if it may have been forgotten on the way.
    """
    used_at = record.info.get(_USED_AT)
    if used_at is None:
        return  # it was made just now
    try:
        if time.monotonic() - used_at >= ask_after or _has_something_to_read(connection):
            dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as exc:
        # the others of the pool have been lost, too
        raise InvalidatePoolError from exc


def _has_something_to_read(connection: Any) -> bool:
    looking = select.poll()
    looking.register(connection.fileno(), select.POLLIN)
    return bool(looking.poll(0))


def _begin_session(connection: Any, _: Any) -> None:
    """Begin a session of Dagster's like one of ours; `connection` is psycopg2's."""
    check_server(connection.server_version, connection.get_parameter_status("server_encoding"))
    with connection.cursor() as cursor:
        cursor.execute(session_settings(connection.server_version))
    connection.commit()


def _forget_parents_connections() -> None:
    """A forked child must neither use nor close the connections of its parent."""
    global _guard
    _guard = threading.Lock()
    for engine in _engines.values():
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_parents_connections)
