"""The public API: what it is, that it is typed, and that it works wherever Python runs."""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import parity_dagster
from parity_dagster import (
    ImportFailed,
    ImportProgress,
    ImportService,
    ImportStatus,
    Pair,
    ParityError,
    RateLimited,
    Settings,
)
from parity_dagster.sample_network import LIKE, POST, PROFILE, Running
from parity_dagster.store.database import connect
from parity_dagster_tests.command_line import UNUSED, variables

ROOT = Path(__file__).parents[1]
CONSUMER = Path(__file__).parent / "typing" / "consumer.py"
PUBLIC = (Path(__file__).parent / "public_names.txt").read_text().split()
"""What users import; a name is removed from this file only with a line in CHANGELOG.md."""


@pytest.fixture
def settings(settings: Settings, network: Running) -> Settings:
    return settings.model_copy(update={"plc_url": network.plc_url, "collections": (POST, LIKE)})


def program(code: str, settings: Settings | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    if settings is not None:
        env |= variables(settings, PARITY_COLLECTIONS=",".join(settings.collections))
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_public_names_are_exactly_these_and_each_can_be_loaded() -> None:
    # The stub lists the names, and has neither of these two.
    assert parity_dagster.__all__ == PUBLIC  # type: ignore[attr-defined]
    for name in PUBLIC:
        assert getattr(parity_dagster, name) is not None
        assert name in dir(parity_dagster)
    with pytest.raises(AttributeError, match="no_such_name"):
        parity_dagster.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_every_error_is_public() -> None:
    from parity_dagster import errors

    tree = {name for name, each in vars(errors).items() if inspect.isclass(each) and issubclass(each, ParityError)}
    assert tree <= set(PUBLIC)
    with pytest.raises(ParityError):
        raise RateLimited("slow down", retry_after=1)


def test_public_classes_and_methods_are_documented() -> None:
    for name in PUBLIC:
        thing = getattr(parity_dagster, name)
        if not inspect.isclass(thing):
            continue
        assert inspect.getdoc(thing), name
        for method, function in inspect.getmembers(thing, inspect.isfunction):
            if method.startswith("_") or function.__module__.split(".")[0] != "parity_dagster":
                continue
            text = inspect.getdoc(function) or ""
            assert text, f"{name}.{method}"
            parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "exclude")]
            if name in ("ImportService", "ImportUserJob", "QueuedImport"):
                assert all(f"{parameter}:" in text for parameter in parameters), f"{name}.{method} lacks an argument"


def test_importing_the_package_is_quick_and_loads_nothing_of_it() -> None:
    code = (
        "import sys, time; t = time.process_time(); import parity_dagster; t = time.process_time() - t;"
        "print([m for m in sys.modules if m.startswith('parity_dagster.') or m in ('pydantic', 'psycopg', 'dagster')]);"
        "print(t * 1000)"
    )
    # Time on the processor, and the best of three, because others may use the machine, too.
    tries = [program(code).stdout.splitlines() for _ in range(3)]
    assert {loaded for loaded, _ in tries} == {"[]"}
    assert min(float(milliseconds) for _, milliseconds in tries) < 50


def test_importing_loads_no_dagster_and_nothing_else_that_it_does_not_use(settings: Settings, network: Running) -> None:
    did = network.network.add_account({POST: 2})
    done = program(
        "import sys; from parity_dagster import ImportService\n"
        f"with ImportService() as service: print(service.import_user({did!r}).records_synced)\n"
        f"print({UNUSED} & set(sys.modules))",
        settings,
    )
    assert done.stdout.splitlines() == ["2", "set()"], done.stderr


@pytest.mark.long
def test_a_consumers_script_passes_mypy_strict(tmp_path: Path) -> None:
    assert (ROOT / "parity_dagster" / "py.typed").exists()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull),
            *("--cache-dir", str(ROOT / ".mypy_cache" / "consumer"), str(CONSUMER)),
        ],
        env={**os.environ, "MYPYPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_same_script_runs(settings: Settings, network: Running) -> None:
    did = network.network.add_account({POST: 120, LIKE: 3})
    done = subprocess.run(
        [sys.executable, str(CONSUMER), did],
        env={**os.environ, **variables(settings, PARITY_COLLECTIONS=f"{POST},{LIKE}"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["1", "True", "1", "True", "1", "pending", "True"], done.stderr


def test_it_works_inside_a_running_event_loop_as_in_a_notebook(settings: Settings, network: Running) -> None:
    did = network.network.add_account({POST: 150})
    pages: list[ImportProgress] = []

    async def cell() -> int:
        with ImportService(settings, report=False) as service:
            result = service.import_user_collection(did, POST, pages.append)
            assert service.is_imported(did, POST)
        return result.records_synced

    assert asyncio.run(cell()) == 150
    assert [page.records_synced for page in pages][:1] == [100]
    assert {page.collection for page in pages} == {POST}


@pytest.mark.long
def test_many_threads_may_share_one_service_as_in_a_web_worker(settings: Settings, network: Running) -> None:
    dids = [network.network.add_account({POST: 30, LIKE: 5}) for _ in range(12)]
    with ImportService(settings, report=False) as service, ThreadPoolExecutor(12) as threads:
        results = list(threads.map(service.import_user, dids))
        assert all(result.is_success and result.records_synced == 35 for result in results)
        assert len(service.find_states(statuses=[ImportStatus.COMPLETED])) == 24


def test_of_two_threads_that_want_the_same_pair_one_imports_it(settings: Settings, network: Running) -> None:
    did = network.network.add_account({POST: 400})
    network.network.behave(latency=0.05, page_cap=10)
    began, tried = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        with network.network.lock:  # the network answers nothing until the second thread has tried
            began.set()
            tried.wait(30)

    with ImportService(settings, report=False) as service, ThreadPoolExecutor() as threads:
        first = threads.submit(service.import_user_collection, did, POST, hold)
        assert began.wait(30)
        second = service.import_user_collection(did, POST)
        tried.set()
        assert second.error_code == "busy"
        assert first.result(60).records_synced == 400


@pytest.mark.long
def test_a_forked_worker_opens_connections_of_its_own(settings: Settings, network: Running) -> None:
    dids = [network.network.add_account({POST: 10}) for _ in range(3)]
    code = f"""
import os, sys, warnings
warnings.simplefilter("ignore")
from parity_dagster import ImportService
service = ImportService(report=False)
print(service.import_user({dids[0]!r}).records_synced, flush=True)
for did in {dids[1:]!r}:
    if os.fork() == 0:
        print(service.import_user(did).records_synced, flush=True)
        service.close()
        sys.exit()
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
if os.fork() == 0:
    sys.exit()  # a worker that never used it
print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
print(len(service.find_states()), flush=True)
service.close()
"""
    done = program(code, settings.model_copy(update={"collections": (POST,)}))
    assert done.stdout.split() == ["10", "10", "0", "10", "0", "0", "3"], done.stderr


def test_a_service_may_be_used_again_after_it_was_closed(settings: Settings, network: Running) -> None:
    did = network.network.add_account({POST: 3, PROFILE: 1})
    service = ImportService(settings, report=False)
    assert service.import_user(did).is_success
    service.close()
    service.close()
    assert service.is_imported(did, POST)
    service.close()


def test_wrong_arguments_are_results_not_exceptions(settings: Settings, network: Running) -> None:
    did = network.network.add_account({POST: 3})
    with ImportService(settings, report=False) as service:
        assert service.import_user("nonsense").error_code == "invalid_identifier"
        failed = service.import_user_collection(did, "com.example.unknown")
        assert failed.error_code == "not_registered"
        heard: list[object] = []
        results = service.import_pairs([Pair(did, POST), Pair("x", POST)], on_event=heard.append)
    assert [result.is_success for result in results] == [True, False]
    assert any(isinstance(event, ImportFailed) and event.state is None for event in heard)
    with connect(settings) as connection:
        assert connection.execute("SELECT count(*) FROM parity_import_states").fetchone() == (1,)


def test_values_can_be_sent_to_another_process(settings: Settings, network: Running) -> None:
    did = network.network.add_account({POST: 3})
    events: list[object] = []
    with ImportService(settings, [events.append], report=False) as service:
        service.import_user(did)
        states = service.get_status_for_user(did)
    for value in [*events, *states]:
        assert pickle.loads(pickle.dumps(value)) == value
