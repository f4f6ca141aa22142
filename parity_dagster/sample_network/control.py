"""Steering a served network from another process: `POST /control/<method>` with JSON arguments.

Each method is one of `SampleNetwork`, named and called as in Python; `GET /control/log`, `/control/records`,
`/control/counts`, `/control/requests` and `/control/network` read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from parity_dagster.sample_network.behaviour import Behaviour
from parity_dagster.sample_network.content import encode
from parity_dagster.sample_network.faults import error
from parity_dagster.sample_network.hosts import Host
from parity_dagster.sample_network.network import SampleNetwork
from parity_dagster.sample_network.wire import Answer, Handler, Request

_CHANGES = frozenset(
    {
        *("add_account", "drop_repo", "migrate", "set_document", "set_status"),
        *("change_handle", "recover", "rotate_key", "tombstone"),
        *("add_host", "add_mirror", "bring_up_host", "take_down_host"),
        *("add_odd", "delete_record", "put_record", "update_record"),
        *("behave", "behave_normally"),
    }
)


def control_handler(network: SampleNetwork) -> Handler:
    """Return the handler of the control port."""

    def handle(request: Request) -> Answer:
        name = request.path.removeprefix("/control/")
        try:
            if request.verb == "POST" and name == "clear_log":
                network.log.clear()
                return Answer(200, b'{"result":null}')
            if request.verb == "POST" and name in _CHANGES:
                arguments = json.loads(request.body or b"{}")
                return Answer(200, encode({"result": _plain(getattr(network, name)(**arguments))}))
            if request.verb == "GET" and name in _READERS:
                return Answer(200, encode(_READERS[name](network, request.query)))
        except (KeyError, TypeError, ValueError) as exc:
            return error(400, "InvalidRequest", f"{type(exc).__name__}: {exc}")
        known = ", ".join(sorted([*_CHANGES, "clear_log", *_READERS]))
        return error(404, "NotFound", f"no {request.verb} {request.path}; there are {known}")

    return handle


def _plain(result: Any) -> Any:
    if isinstance(result, Behaviour):
        return asdict(result)
    return {"name": result.name, "url": result.url} if isinstance(result, Host) else result


def _log(network: SampleNetwork, query: dict[str, str]) -> Any:
    wanted: dict[str, Any] = {name: query[name] for name in ("host", "method", "did", "collection") if name in query}
    if "status" in query:
        wanted["status"] = int(query["status"])
    return {"requests": [entry._asdict() for entry in network.log.entries(**wanted)]}


def _records(network: SampleNetwork, query: dict[str, str]) -> Any:
    found = network.records(query["did"], query["collection"])
    odd = network.odd_records(query["did"], query["collection"])
    return {
        "records": [
            # Latin-1 keeps every byte of a value that is not valid UTF-8.
            {"rkey": rkey, "cid": cid, "value": value.decode("latin-1"), "odd": odd.get(rkey, "")}
            for rkey, (cid, value) in found.items()
        ]
    }


def _counts(network: SampleNetwork, query: dict[str, str]) -> Any:
    return {"counts": [[did, nsid, count] for (did, nsid), count in network.counts().items()]}


def _requests(network: SampleNetwork, query: dict[str, str]) -> Any:
    return {"requests": [[*asked, count] for asked, count in network.log.counts().items()]}


def describe(network: SampleNetwork, *, dids: int | None = None) -> dict[str, Any]:
    """Return where a network is served and who lives there: all DIDs, or the first ones."""
    return {
        "plc_url": ",".join(mirror.url for mirror in network.mirrors.values()),
        "relay_url": network.relay.url,
        "pds_urls": {name: host.url for name, host in network.hosts.items()},
        "accounts": len(network.accounts),
        "dids": network.dids[:dids],
    }


_READERS: dict[str, Callable[[SampleNetwork, dict[str, str]], Any]] = {
    "counts": _counts,
    "log": _log,
    "network": lambda network, query: describe(network),
    "records": _records,
    "requests": _requests,
}
