"""`dagster dev` and other programs, started for a measurement and stopped after it; questions to the UI's GraphQL."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PLACE = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"


def free_port() -> int:
    """A port nobody listens on, out of those that the system gives to nobody else by itself."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def started(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program that is ended with everything in its session."""
    process = subprocess.Popen(command, start_new_session=True, text=True, **options)
    try:
        yield process
    finally:
        for signum in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signum)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)


def ask(port: int, query: str, **variables: Any) -> Any:
    """A GraphQL query."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        said = json.load(answer)
    if "errors" in said:
        raise RuntimeError(str(said["errors"])[:500])
    return said["data"]


@contextmanager
def dagster(folder: Path, environment: dict[str, str]) -> Iterator[int]:
    """`dagster dev` in a folder; gives the port of the UI once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "dagster", "dev", "--host", "127.0.0.1", "--port", str(port)]
    with (
        (folder / "dev.log").open("a") as log,
        started(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        deadline = time.monotonic() + 180
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "dev.log").read_text()[-2000:])
            with suppress(OSError, RuntimeError, ValueError):
                if ask(port, PLACE)["repositoriesOrError"].get("nodes"):
                    break
            time.sleep(0.5)
        yield port
