"""Serving a sample network: one loopback port per host, one thread or one process."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from parity_dagster.sample_network.answering import answer_for
from parity_dagster.sample_network.control import control_handler
from parity_dagster.sample_network.hosts import Host
from parity_dagster.sample_network.network import SampleNetwork
from parity_dagster.sample_network.wire import HttpProtocol


@dataclass(frozen=True, slots=True)
class Running:
    """A network that is being served.

    Attributes:
        network: the model; change it at will.
        plc_url: value for `PARITY_PLC_URL`; all mirrors that were there when it began.
        relay_url: value for `PARITY_RELAY_URL`.
        control_url: where other processes steer the network.
    """

    network: SampleNetwork
    plc_url: str
    relay_url: str
    control_url: str

    @property
    def pds_urls(self) -> dict[str, str]:
        """Name → origin of every PDS."""
        return {name: host.url for name, host in self.network.hosts.items()}


class _Doors:
    """The listening sockets of all hosts; may be used from any thread while the loop runs."""

    def __init__(self, network: SampleNetwork, loop: asyncio.AbstractEventLoop) -> None:
        self._network = network
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._servers: dict[str, asyncio.AbstractServer] = {}
        self._reserved: dict[str, socket.socket] = {}
        self._connections: dict[str, set[HttpProtocol]] = {}
        self._starting: dict[str, asyncio.Task[None]] = {}
        self.control = Host("control", {})

    def open_host(self, host: Host) -> None:
        """Accept connections for a host, on the port it had before if any."""
        self._in_loop(self._open, host)

    def close_host(self, host: Host) -> None:
        """Refuse connections to a host, cut the open ones and keep its port."""
        self._in_loop(self._close, host)

    def _in_loop(self, action: Callable[[Host], None], host: Host) -> None:
        """Act in the loop's thread, where alone the sockets are touched, and wait for it."""
        if threading.get_ident() == self._loop_thread:
            action(host)
            return

        async def act() -> None:
            action(host)
            if starting := self._starting.get(host.name):
                await starting

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(10)

    def _open(self, host: Host) -> None:
        host.is_up = True
        if host.name in self._servers or host.name in self._starting:
            return
        door = self._reserved.pop(host.name, None) or _bind(host.address, host.port)
        door.listen(1024)  # from here on the kernel accepts connections; nobody has to wait for the server
        host.port = door.getsockname()[1]
        self._starting[host.name] = self._loop.create_task(self._serve(host, door))

    async def _serve(self, host: Host, door: socket.socket) -> None:
        handler = control_handler(self._network) if host is self.control else answer_for(self._network, host)
        connections = self._connections.setdefault(host.name, set())
        server = await self._loop.create_server(lambda: HttpProtocol(handler, connections), sock=door)
        self._servers[host.name] = server
        del self._starting[host.name]
        if not host.is_up:
            self._close(host)

    def _close(self, host: Host) -> None:
        host.is_up = False
        server = self._servers.pop(host.name, None)
        if server is not None:
            server.close()
            # A bound socket that does not listen refuses connections and keeps the port ours.
            self._reserved[host.name] = _bind(host.address, host.port)
        for connection in list(self._connections.get(host.name, ())):
            connection.transport.abort()

    async def close(self) -> None:
        for task in list(self._starting.values()):
            await task
        for connections in self._connections.values():
            for connection in list(connections):
                connection.transport.abort()
        for server in self._servers.values():
            server.close()
        for door in self._reserved.values():
            door.close()
        await asyncio.sleep(0)


def _bind(address: str, port: int) -> socket.socket:
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.setblocking(False)
    try:
        door.bind((address, port))
    except OSError:
        door.close()
        raise
    return door


def _run(main: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where it is installed; it saves a third of the server's time."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)


async def _serve(
    network: SampleNetwork,
    ports: tuple[int, int, int],
    started: Callable[[Running, Callable[[], None]], None],
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    doors = _Doors(network, loop)
    plc_port, pds_port, control_port = ports
    network.plc.port, doors.control.port = plc_port, control_port
    for number, host in enumerate(network.hosts.values()):
        host.port = pds_port + number if pds_port else 0
    try:
        for host in (*network.mirrors.values(), network.relay, doors.control, *network.hosts.values()):
            doors.open_host(host)
        network.server = doors
        plc_url = ",".join(mirror.url for mirror in network.mirrors.values())
        running = Running(network, plc_url, network.relay.url, doors.control.url)

        def end() -> None:
            loop.call_soon_threadsafe(stop.set)

        started(running, end)
        await stop.wait()
    finally:
        network.server = None
        await doors.close()


@contextmanager
def run_in_thread(
    network: SampleNetwork | None = None, *, plc_port: int = 0, pds_port: int = 0, control_port: int = 0
) -> Iterator[Running]:
    """Serve a network, by default an empty one with one host, in a thread of this process.

    A port 0 takes a free one, `pds_port` is the first PDS's and the others follow; `OSError` if a port is taken.
    """
    served = network or SampleNetwork()
    ready = threading.Event()
    found: list[tuple[Running, Callable[[], None]]] = []
    failures: list[BaseException] = []

    def started(running: Running, stop: Callable[[], None]) -> None:
        found.append((running, stop))
        ready.set()

    def work() -> None:
        try:
            _run(_serve(served, (plc_port, pds_port, control_port), started))
        except BaseException as exc:  # noqa: BLE001 -- handed to the thread that waits
            failures.append(exc)
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="sample-network", daemon=True)
    thread.start()
    ready.wait()
    if failures:
        raise failures[0]
    running, stop = found[0]
    try:
        yield running
    finally:
        stop()
        thread.join(10)


def serve(
    network: SampleNetwork,
    *,
    plc_port: int = 0,
    pds_port: int = 0,
    control_port: int = 0,
    on_start: Callable[[Running], None] = lambda running: None,
) -> None:
    """Serve a network until SIGTERM or SIGINT; `on_start` is called once all ports accept connections.

    A port 0 takes a free one, `pds_port` is the first PDS's and the others follow; `OSError` if a port is taken.
    """

    def started(running: Running, stop: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        on_start(running)

    _run(_serve(network, (plc_port, pds_port, control_port), started))
