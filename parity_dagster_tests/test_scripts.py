"""Scripts that use `ImportService` in whatever way end by themselves, at once, and without a word on stderr."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from parity_dagster.sample_network import LIKE, POST, Running
from parity_dagster.settings import Settings
from parity_dagster_tests.command_line import variables
from parity_dagster_tests.imports import query, settings_for
from parity_dagster_tests.quick import quick

AT_ONCE = 10.0
"""Seconds from a script's last line to the end of its process on a busy machine; else it takes a fraction of one."""

BEGINNING = """
import logging, os, sys, threading, time
logging.getLogger("parity_dagster.atproto.network").setLevel(logging.ERROR)  # warns that loopback is allowed
from functools import partial
from parity_dagster import ImportService
if "with Dagster" not in sys.argv:
    ImportService = partial(ImportService, report=False)
DID, OTHER, SLOW = sys.argv[1:4]
POST, LIKE = "app.bsky.feed.post", "app.bsky.feed.like"
"""


class Script:
    """Runs scripts on a sample network, with nothing set that hides a warning."""

    def __init__(self, settings: Settings, running: Running, folder: Path) -> None:
        self.settings = settings_for(settings, running)
        self.network = running.network
        self._path = folder / "script.py"
        self._dids = [self.network.add_account({POST: 3, LIKE: 2}) for _ in range(2)]
        self._dids.append(self.network.add_account({POST: 5000}))
        self.network.behave(did=self._dids[2], latency=0.3)
        self.environment = {**os.environ, **variables(self.settings, PYTHONWARNINGS="default::ResourceWarning")}

    def start(self, text: str, *arguments: str) -> subprocess.Popen[str]:
        """Begin a script."""
        self._path.write_text(BEGINNING + textwrap.dedent(text))
        command = [sys.executable, str(self._path), *self._dids, *arguments]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, text: str, *arguments: str, code: int = 0) -> str:
        """Run a script to its end; its last line's time is printed by `done()`."""
        ending = "\ndef done(): print(f'done {time.time()}', flush=True)\n"
        with self.start(ending + textwrap.dedent(text), *arguments) as process:
            try:
                output, errors = process.communicate(timeout=60)
            finally:
                process.kill()
        ended = time.time()
        assert (process.returncode, errors) == (code, "")
        assert query(self.settings, "SELECT count(*) FROM parity_importers") == [(0,)]
        *lines, last = output.splitlines()
        assert last.startswith("done ")
        assert ended - float(last.split()[1]) < AT_ONCE
        return "\n".join(lines)


@pytest.fixture(scope="session")
def template_database(template_with_dagster: str) -> str:
    return template_with_dagster


@pytest.fixture
def script(settings: Settings, network: Running, tmp_path: Path) -> Script:
    return Script(settings, network, tmp_path)


@pytest.mark.parametrize(
    "use",
    quick(
        1,
        [
            pytest.param(
                "service = ImportService(); print(service.import_user(DID).records_synced); service.service = service",
                id="in-a-cycle",
            ),
            pytest.param(
                "with ImportService() as service: print(service.import_user(DID).records_synced); service.close()",
                id="closed twice",
            ),
            pytest.param("print(ImportService().import_user(DID).records_synced)", id="never-kept"),
            pytest.param(
                "import atexit; service = ImportService(); atexit.register(service.close);"
                " print(service.import_user(DID).records_synced)",
                id="closed-at-exit",
            ),
        ],
    ),
)
def test_a_script_ends_at_once_closed_or_not(script: Script, use: str) -> None:
    assert script.run(f"{use}\ndone()") == "5"


def test_a_script_ends_although_dagster_is_told(script: Script) -> None:
    assert script.run("print(ImportService().import_user(DID).records_synced)\ndone()", "with Dagster") == "5"


@pytest.mark.long
def test_a_service_that_nobody_has_any_more_ends_its_thread(script: Script) -> None:
    use = """
    import gc
    ImportService().import_user(DID)
    gc.collect()
    deadline = time.monotonic() + 20
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    print([thread.name for thread in threading.enumerate()])
    done()
    """
    assert script.run(use) == "['MainThread']"


@pytest.mark.long
def test_threads_a_running_loop_and_two_services_end_with_the_script(script: Script) -> None:
    use = """
    import asyncio
    one, two = ImportService(), ImportService()
    async def main():
        print(one.import_user(DID, [POST]).records_synced)
        print((await asyncio.to_thread(two.import_user, DID, [LIKE])).records_synced)
    asyncio.run(main())
    threads = [
        threading.Thread(target=service.import_user, args=(OTHER, [nsid]))
        for service, nsid in ((one, POST), (two, LIKE))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done()
    """
    assert script.run(use) == "3\n2"
    assert query(script.settings, "SELECT count(*) FROM atproto_records") == [(10,)]


@pytest.mark.long
@pytest.mark.parametrize("method", quick(1, ["fork", "spawn"]))
def test_a_process_of_multiprocessing_uses_a_service_and_ends(script: Script, method: str) -> None:
    use = f"""
    import multiprocessing
    service = ImportService()
    def work(did):
        global service
        print(service.import_user(did, [LIKE]).records_synced, flush=True)
    if __name__ == "__main__":
        service.import_user(DID, [POST])
        process = multiprocessing.get_context({method!r}).Process(target=work, args=(DID,))
        process.start()
        process.join()
        print(process.exitcode, service.is_imported(DID, LIKE))
        done()
    """
    assert script.run(use) == "2\n0 True"


@pytest.mark.long
def test_a_fork_that_ends_like_any_script_leaves_its_parent_in_peace(script: Script) -> None:
    use = """
    service = ImportService()
    service.import_user(DID, [POST])
    child = os.fork()
    if child == 0:
        print(service.import_user(DID, [LIKE]).records_synced, flush=True)
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(service.import_user(OTHER).records_synced)
    done()
    """
    assert script.run(use) == "2\n3\n5"


@pytest.mark.long
def test_what_a_callback_or_an_iterable_raises_comes_out_and_the_service_goes_on(script: Script) -> None:
    use = """
    service = ImportService()
    def attempt(error, call):
        try:
            call()
        except error as exc:
            print(exc)
    for error in KeyboardInterrupt, SystemExit, LookupError:
        def stop(event):
            raise error("callback")
        def pairs():
            try:
                yield DID, POST
                yield SLOW, POST
                raise error("iterable")
            finally:
                print("closed", end=" ")
        if error is not LookupError:  # an error of a listener's is logged, and the import goes on
            attempt(error, lambda: service.import_user_collection(SLOW, POST, stop))
        attempt(error, lambda: service.import_pairs(pairs()))
    print(service.import_user(DID).records_synced)
    done()
    """
    assert script.run(use) == "callback\nclosed iterable\ncallback\nclosed iterable\nclosed iterable\n5"


@pytest.mark.long
def test_the_script_ends_although_a_daemon_thread_imports(script: Script) -> None:
    use = """
    service = ImportService()
    began = threading.Event()
    def work():
        service.import_user_collection(SLOW, POST, lambda event: began.set())
    threading.Thread(target=work, daemon=True).start()
    began.wait()
    done()
    sys.exit(4)
    """
    script.run(use, code=4)


@pytest.mark.long
def test_the_script_waits_for_an_import_in_a_thread_that_is_no_daemon(script: Script) -> None:
    use = """
    def work():
        print(ImportService().import_user(DID).records_synced, flush=True)
        done()
    threading.Thread(target=work).start()
    sys.exit(4)
    """
    assert script.run(use, code=4) == "5"


@pytest.mark.long
def test_closing_a_service_stops_an_import_of_another_thread(script: Script) -> None:
    use = """
    from parity_dagster import Interrupted
    service = ImportService()
    began = threading.Event()
    def work():
        try:
            service.import_user_collection(SLOW, POST, lambda event: began.set())
        except Interrupted as exc:
            print(exc)
    thread = threading.Thread(target=work)
    thread.start()
    began.wait()
    service.close()
    thread.join()
    print([thread.name for thread in threading.enumerate()])
    done()
    """
    assert script.run(use) == "stopped before its end; what was committed stays, and it can be resumed\n['MainThread']"


@pytest.mark.long
def test_an_iterable_that_blocks_for_ever_holds_up_neither_what_it_gave_nor_the_end(script: Script) -> None:
    use = """
    service = ImportService()
    def pairs():
        yield DID, POST
        yield DID, LIKE
        threading.Event().wait()
    imported = []
    def on_event(event):
        if type(event).__name__ == "ImportCompleted":
            imported.append(event.result.records_synced)
            if len(imported) == 2:
                raise KeyboardInterrupt
    try:
        service.import_pairs(pairs(), on_event=on_event)
    except KeyboardInterrupt:
        print(sorted(imported))
    done()
    """
    assert script.run(use) == "[2, 3]"


@pytest.mark.long
def test_a_listener_may_use_its_service_and_a_mapper_is_told_that_it_must_not(script: Script, tmp_path: Path) -> None:
    mapper = """
    from parity_dagster import RecordMapper
    service = None
    class Mapper(RecordMapper):
        collection = "app.bsky.feed.like"
        def validate(self, record):
            service.get_status(record.did, record.collection)
    """
    (tmp_path / "nested.py").write_text(textwrap.dedent(mapper))
    script.environment["PARITY_MAPPERS"] = "nested:Mapper"
    use = """
    import nested
    service = nested.service = ImportService()
    def listener(event):
        if type(event).__name__ == "ImportCompleted" and event.did == DID:
            print(service.is_imported(DID, POST), service.import_user(OTHER, [POST]).records_synced)
    service.import_pairs([(DID, POST)], on_event=listener)
    service.import_user(DID, [LIKE])
    print({failed.detail for failed in service.find_failed_records()})
    done()
    """
    told, refused = script.run(use).splitlines()
    assert told == "True 3"
    assert "would wait for itself" in refused


@pytest.mark.long
def test_a_mapper_that_exits_ends_its_import_and_not_the_service(script: Script, tmp_path: Path) -> None:
    mapper = """
    from parity_dagster import RecordMapper
    class Mapper(RecordMapper):
        collection = "app.bsky.feed.like"
        def validate(self, record):
            raise SystemExit("from the mapper")
    """
    (tmp_path / "exiting.py").write_text(textwrap.dedent(mapper))
    script.environment["PARITY_MAPPERS"] = "exiting:Mapper"
    use = """
    service = ImportService()
    try:
        service.import_user(DID, [LIKE])
    except SystemExit as exc:
        print(exc)
    print(service.import_user(DID, [POST]).records_synced)
    done()
    """
    assert script.run(use) == "from the mapper\n3"


@pytest.mark.long
@pytest.mark.parametrize("number", quick(1, [signal.SIGINT, signal.SIGTERM]))
@pytest.mark.parametrize("delay", quick(2, [0.1, 0.7, 0.0, 0.3]))
def test_a_signal_ends_a_script_at_any_moment_of_its_first_import(
    script: Script, number: signal.Signals, delay: float
) -> None:
    """SIGTERM as Python has it, SIGINT as a KeyboardInterrupt that nobody catches."""
    # A signal while modules are being loaded is Python's, which loses one now and then.
    with script.start("print(flush=True)\nImportService().import_user_collection(SLOW, POST)") as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(number)
        sent = time.monotonic()
        try:
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
        assert time.monotonic() - sent < AT_ONCE
        assert process.returncode in (-number, 1)
        assert "unclosed" not in errors
        assert "Exception ignored" not in errors
