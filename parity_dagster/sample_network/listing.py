"""Lists of accounts: `listRepos` of a PDS or relay, and `listReposByCollection` of the relay."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parity_dagster.sample_network.accounts import make_tid
from parity_dagster.sample_network.behaviour import Behaviour
from parity_dagster.sample_network.blocks import make_cid
from parity_dagster.sample_network.content import encode
from parity_dagster.sample_network.faults import error
from parity_dagster.sample_network.hosts import Host
from parity_dagster.sample_network.network import SampleNetwork
from parity_dagster.sample_network.repo import Repo
from parity_dagster.sample_network.scopes import Scope
from parity_dagster.sample_network.wire import Answer

_LONG_AGO = make_tid(1_500_000_000_000_000)
_NOT_YET = make_tid(9_000_000_000_000_000)
_NO_ACCOUNTS: tuple[Any, ...] = (
    *({"did": did} for did in ("", "did:plc:UPPER", "did:plc:short", "did:example:123", "alice.test", "did:web:a b")),
    *({"did": did} for did in ("did:web:" + "x" * 9000, "did:plc:\0", 7, None, {"did": "did:web:a.test"}, "\ud800")),
    *({}, [], None, 7, "did:web:a.test"),
)


def read_limit(text: str, behaviour: Behaviour, *, most: int) -> int | Answer:
    """Return the limit that is in force, or the answer that refuses it."""
    if not text.isascii() or not text.isdigit() or int(text[:9]) < 1:
        return error(400, "InvalidRequest", "Error: limit must be an integer not less than 1")
    limit = int(text[:9])
    if limit <= most or behaviour.over_limit == "honour":
        return limit
    match behaviour.over_limit:
        case "clamp":
            return most
        case "fail":
            return error(500, "InternalServerError", "Internal Server Error")
        case "plain":
            return Answer(400, b"limit out of range", "text/plain")
    return error(400, "InvalidRequest", f"Error: limit can not be greater than {most}")


def made_up_head(repo: Repo) -> str:
    """Return a CID for a repository's commit; the true one would cost the whole tree, and few read it."""
    return make_cid(f"{repo.did}/{repo.rev}".encode())


def list_repos(network: SampleNetwork, host: Host, query: Mapping[str, str], scope: Scope) -> Answer:
    """Answer com.atproto.sync.listRepos: of a PDS its own accounts, of the relay all."""
    behaviour = scope.behaviour
    if host is network.relay:
        accounts = network.accounts
        return _answer(list(accounts), lambda did: _row(accounts[did].repo, behaviour), query, scope, most=1000)
    # as the reference has it: the cursor says when an account came to this host, so that new ones come last
    return _answer(list(host.repos), lambda did: _row(host.repos[did], behaviour), query, scope, most=1000)


def _row(repo: Repo, behaviour: Behaviour) -> dict[str, Any]:
    lies = behaviour.account_lies
    if "no-rev" in lies:
        return {"did": repo.did}
    status = "active" if "all-active" in lies else "deleted" if "none-active" in lies else repo.status
    rev = repo.rev_shifted(behaviour.rev_ahead)
    for lie, told in (("old-rev", _LONG_AGO), ("future-rev", _NOT_YET), ("bad-rev", "\0" * 13)):
        rev = told if lie in lies else rev
    row = {"did": repo.did, "head": made_up_head(repo), "rev": rev, "active": status == "active"}
    return row if status == "active" else row | {"status": status}


def list_repos_by_collection(network: SampleNetwork, host: Host, query: Mapping[str, str], scope: Scope) -> Answer:
    """Answer com.atproto.sync.listReposByCollection."""
    nsid = query.get("collection", "")
    if nsid.count(".") < 2:
        return Answer(400, b"bad collection nsid", "text/plain")
    listed: Sequence[str] = network.seen.of(nsid)
    if scope.behaviour.account_order == "did":
        listed = sorted(listed)
    return _answer(listed, lambda did: {"did": did}, query, scope, most=2000)


def _answer(
    dids: Sequence[str], row: Callable[[str], dict[str, Any]], query: Mapping[str, str], scope: Scope, *, most: int
) -> Answer:
    behaviour = scope.behaviour
    if not behaviour.sync_methods:
        return error(501, "MethodNotImplemented", "Method Not Implemented")
    limit = read_limit(query.get("limit", "500"), behaviour, most=behaviour.account_limit or most)
    if isinstance(limit, Answer):
        return limit
    limit = min(limit, behaviour.page_cap or limit)
    cursor = query.get("cursor", "")
    pair = ("", query.get("collection", ""))
    scope.pages[pair] = number = scope.pages.get(pair, 0) + 1
    try:
        start = _start(dids, cursor, behaviour)
    except ValueError:
        return error(400, "InvalidRequest", "Malformed cursor")
    if behaviour.empty_every and number % behaviour.empty_every == 0 and start < len(dids):
        return Answer(200, encode({"repos": [], "cursor": _spell(dids, start) + "-" * number}))
    stop = min(start + limit, len(dids))
    rows: list[Any] = [row(did) for did in dids[start:stop]]
    if "repeated" in behaviour.account_lies and rows:
        rows = [row(dids[max(0, start - 1)]), rows[0], *rows]
    if "two-revs" in behaviour.account_lies and rows:
        rows.append({**rows[0], "rev": _LONG_AGO})
    if "invalid" in behaviour.account_lies:
        rows[len(rows) // 2 : len(rows) // 2] = _NO_ACCOUNTS
    following = _spell(dids, stop) if stop - start == limit else ""
    if behaviour.loop == "advance":
        following = str(number)
    elif behaviour.loop == "same":
        following = cursor or following or "0/"
    body = {"repos": rows} | ({"cursor": following} if following else {})
    # a lone surrogate can only be escaped
    return Answer(200, json.dumps(body).encode() if "invalid" in behaviour.account_lies else encode(body))


def _start(dids: Sequence[str], cursor: str, behaviour: Behaviour) -> int:
    """Return the position of a cursor, `position/did of the last account`; `ValueError` if it has another form."""
    if not cursor or behaviour.loop in ("ignore", "advance"):
        return 0
    position, _, last = cursor.rstrip("-").partition("/")
    if behaviour.account_order == "did":
        return bisect_right(dids, last)
    start = min(int(position), len(dids))
    # accounts that are gone since have moved the others up
    while start and dids[start - 1] != last:
        start -= 1
    return start


def _spell(dids: Sequence[str], position: int) -> str:
    return f"{position}/{dids[position - 1] if position else ''}"


RELAY_METHODS: dict[str, Callable[[SampleNetwork, Host, Mapping[str, str], Scope], Answer]] = {
    "com.atproto.sync.listRepos": list_repos,
    "com.atproto.sync.listReposByCollection": list_repos_by_collection,
    "_health": lambda network, host, query, scope: Answer(200, b'{"version":"relay.sample"}'),
}
