"""A real Dagster UI over the sample network, and a real browser in front of it; for tests and for screenshots."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from playwright.sync_api import BrowserContext, sync_playwright

from parity_dagster.sample_network import Running
from parity_dagster_tests.chromium import NO_CHROMIUM, find_chromium

T = TypeVar("T")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@contextmanager
def browser(folder: Path, *, dark: bool = False, width: int = 1440, height: int = 900) -> Iterator[BrowserContext]:
    """A browser with an empty profile that talks to this machine only."""
    program = find_chromium()
    assert program is not None, NO_CHROMIUM
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(folder),
            executable_path=program,
            headless=True,
            args=CHROMIUM_FLAGS,
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        )
        context.route(lambda url: "127.0.0.1" not in url and not url.startswith("data:"), lambda route: route.abort())
        try:
            yield context
        finally:
            context.close()


def eventually(question: Callable[[], T | None], what: str, seconds: float = 60.0) -> T:
    """Ask until there is an answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = question()
        if answer:
            return answer
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


@dataclass(frozen=True)
class DagsterUI:
    """A running webserver and daemon."""

    url: str
    environment: Mapping[str, str]
    folder: Path
    process: subprocess.Popen[bytes]

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """A GraphQL query."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            said = json.load(answer)
        assert "errors" not in said, said["errors"]
        found: dict[str, Any] = said["data"]
        return found

    def parity(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command `parity` in the same place."""
        command = [sys.executable, "-c", "from parity_dagster.cli import main; main()", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120
        )

    def run_job(self, name: str, seconds: float = 90.0) -> str:
        """Launch a job of the code location and wait for its end; returns its status."""
        said = self.ask(
            "mutation($job: String!, $repository: String!, $location: String!) { launchRun(executionParams: {selector:"
            " {jobName: $job, repositoryName: $repository, repositoryLocationName: $location}, runConfigData: {}})"
            " { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
            job=name,
            **self._location(),
        )["launchRun"]
        assert said["__typename"] == "LaunchRunSuccess", said
        run_id = said["run"]["runId"]
        return eventually(lambda: self._ended(run_id), f"{name} ends", seconds)

    def _location(self) -> dict[str, str]:
        nodes = self.ask("{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }")
        (node,) = nodes["repositoriesOrError"]["nodes"]
        return {"repository": node["name"], "location": node["location"]["name"]}

    def _ended(self, run_id: str) -> str | None:
        run = self.ask("query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id)["runOrError"]
        return str(run["status"]) if run["status"] in ("SUCCESS", "FAILURE", "CANCELED") else None


@contextmanager
def dagster_ui(folder: Path, network: Running, **variables: str) -> Iterator[DagsterUI]:
    """`parity dev` in an empty folder, on an embedded database, importing from the sample network."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PARITY_", "DAGSTER_"))},
        "PARITY_HOME": str(folder / "home"),
        "PARITY_INBOX": str(folder / "inbox"),
        "PARITY_PLC_URL": network.plc_url,
        "PARITY_ALLOW_PRIVATE_HOSTS": "1",
        "PARITY_PAGE_DELAY": "0",
        **variables,
    }
    (folder / "inbox").mkdir(parents=True)
    log = (folder / "dev.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-c", "from parity_dagster.cli import main; main()", "dev", "--port", str(port)],
        cwd=folder,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    ui = DagsterUI(f"http://127.0.0.1:{port}", environment, folder, process)

    def is_loaded() -> bool:
        assert process.poll() is None, (folder / "dev.log").read_text()[-3000:]
        try:
            return bool(ui._location())
        except (urllib.error.URLError, ConnectionError, TimeoutError, ValueError):
            return False

    try:
        eventually(is_loaded, "the UI is there", 180)
        yield ui
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        if process.poll() is None:
            process.kill()
            process.wait()
        log.close()
