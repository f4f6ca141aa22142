"""The sample network names accounts as a relay and a PDS do, and lies about them as asked."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from parity_dagster.errors import InvalidIdentifier
from parity_dagster.identifiers import parse_did
from parity_dagster.sample_network import LIKE, POST, Fault, Running, SampleNetwork


def ask(client: httpx.Client, url: str, method: str, **params: Any) -> httpx.Response:
    return client.get(f"{url}/xrpc/com.atproto.sync.{method}", params=params)


def pages(client: httpx.Client, url: str, method: str, most: int = 50, **params: Any) -> list[list[Any]]:
    found = []
    cursor: dict[str, str] = {}
    for _ in range(most):
        page = ask(client, url, method, **params, **cursor).json()
        found.append(page["repos"])
        if "cursor" not in page:
            break
        cursor = {"cursor": page["cursor"]}
    return found


def names_an_account(did: str) -> bool:
    try:
        return bool(parse_did(did))
    except InvalidIdentifier:
        return False


def dids(found: list[list[Any]]) -> list[str]:
    return [row["did"] for page in found for row in page]


def test_the_relay_names_who_has_written_to_a_collection_first_seen_first(
    network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    likers = [network.add_account({LIKE: 1}) for _ in range(3)]
    posters = [network.add_account({POST: 2}) for _ in range(4)]
    network.put_record(likers[1], POST)
    found = pages(client, served.relay_url, "listReposByCollection", collection=POST, limit=2)
    assert dids(found) == [*posters, likers[1]]
    assert [len(page) for page in found] == [2, 2, 1]
    assert dids(pages(client, served.relay_url, "listReposByCollection", collection=LIKE)) == likers
    assert pages(client, served.relay_url, "listReposByCollection", collection="com.example.none") == [[]]


def test_the_relay_names_those_who_are_gone(network: SampleNetwork, served: Running, client: httpx.Client) -> None:
    did = network.add_account({POST: 1})
    network.set_status(did, "deleted")
    assert dids(pages(client, served.relay_url, "listReposByCollection", collection=POST)) == [did]


def test_a_cursor_goes_on_behind_the_last_account_and_shows_those_that_are_new(
    network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    known = [network.add_account({POST: 1}) for _ in range(4)]
    page = ask(client, served.relay_url, "listReposByCollection", collection=POST, limit=4).json()
    new = network.add_account({POST: 1})
    query = {"collection": POST, "limit": 4, "cursor": page["cursor"]}
    assert [row["did"] for row in page["repos"]] == known
    assert ask(client, served.relay_url, "listReposByCollection", **query).json() == {"repos": [{"did": new}]}


def test_a_pds_names_its_own_accounts_and_the_relay_all_of_them(
    network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    first, second, third = (network.add_account({POST: 1}) for _ in range(3))
    network.set_status(third, "takendown")
    rows = ask(client, served.pds_urls["pds-1"], "listRepos").json()["repos"]
    assert [row["did"] for row in rows] == [first, third]
    assert rows[0]["rev"] == network.rev(first)
    assert rows[0]["active"] is True
    assert "status" not in rows[0]
    assert rows[1]["active"] is False
    assert rows[1]["status"] == "takendown"
    assert rows[1]["head"].startswith("bafy")
    assert dids(pages(client, served.relay_url, "listRepos", limit=1)) == [first, second, third]


def test_nobody_is_skipped_when_an_account_goes_while_the_list_is_read(
    network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    listed = [network.add_account({POST: 1}, host="pds-1") for _ in range(4)]
    page = ask(client, served.pds_urls["pds-1"], "listRepos", limit=2).json()
    network.drop_repo(listed[0])
    rest = ask(client, served.pds_urls["pds-1"], "listRepos", limit=2, cursor=page["cursor"]).json()
    assert [row["did"] for row in rest["repos"]] == listed[2:]


def test_limits_are_the_lexicons_or_what_the_server_takes(
    network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    for _ in range(5):
        network.add_account({POST: 1}, host="pds-1")
    relay, pds = served.relay_url, served.pds_urls["pds-1"]
    assert ask(client, relay, "listReposByCollection", collection=POST, limit=2000).status_code == 200
    assert ask(client, relay, "listReposByCollection", collection=POST, limit=2001).status_code == 400
    assert ask(client, pds, "listRepos", limit=1000).status_code == 200
    assert ask(client, pds, "listRepos", limit=1001).status_code == 400
    network.behave(host="relay", account_limit=3)
    assert ask(client, relay, "listReposByCollection", collection=POST, limit=4).status_code == 400
    network.behave(host="relay", over_limit="clamp")
    assert len(ask(client, relay, "listReposByCollection", collection=POST, limit=4).json()["repos"]) == 3
    network.behave(host="relay", over_limit="honour")
    assert len(ask(client, relay, "listReposByCollection", collection=POST, limit=4).json()["repos"]) == 4


def test_the_lies_are_told(network: SampleNetwork, served: Running, client: httpx.Client) -> None:
    listed = [network.add_account({POST: 1}, host="pds-1") for _ in range(6)]
    relay, pds = served.relay_url, served.pds_urls["pds-1"]
    query: dict[str, Any] = {"collection": POST, "limit": 2}

    network.behave(account_lies=("repeated",))
    found = dids(pages(client, relay, "listReposByCollection", **query))
    assert set(found) == set(listed)
    assert len(found) == 12
    network.behave(account_lies=("invalid",))
    rows = [row for page in pages(client, relay, "listReposByCollection", **query) for row in page]
    named = [row["did"] for row in rows if isinstance(row, dict) and isinstance(row.get("did"), str)]
    assert [did for did in named if names_an_account(did)] == listed
    assert len(rows) > 60
    network.behave(account_lies=("no-rev",))
    assert ask(client, pds, "listRepos").json()["repos"][0] == {"did": listed[0]}
    for lie in ("old-rev", "future-rev", "bad-rev"):
        network.behave(account_lies=(lie,))
        assert ask(client, pds, "listRepos").json()["repos"][0]["rev"] != network.rev(listed[0])
    network.behave(account_lies=("none-active",))
    assert {row["status"] for row in ask(client, pds, "listRepos").json()["repos"]} == {"deleted"}
    network.set_status(listed[0], "deactivated")
    network.behave(account_lies=("all-active",))
    assert all(row["active"] for row in ask(client, pds, "listRepos").json()["repos"])
    with pytest.raises(ValueError, match="no lie about accounts"):
        network.behave(account_lies=("white",))


def test_a_list_that_never_ends_has_empty_pages_or_is_not_there(
    network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    listed = [network.add_account({POST: 1}, host="pds-1") for _ in range(6)]
    relay = served.relay_url
    query: dict[str, Any] = {"collection": POST, "limit": 2}
    for loop in ("same", "advance", "ignore"):
        network.behave(host="relay", loop=loop)
        assert len(pages(client, relay, "listReposByCollection", **query)) == 50
    network.behave_normally()
    network.behave(host="relay", empty_every=2)
    found = pages(client, relay, "listReposByCollection", **query)
    assert dids(found) == listed
    assert [len(page) for page in found] == [2, 0, 2, 0, 2, 0]
    network.behave_normally()
    network.behave(host="relay", faults=(Fault(kind="500", method="listReposByCollection", skip=1, times=1),))
    assert [ask(client, relay, "listReposByCollection", **query).status_code for _ in range(3)] == [200, 500, 200]
    network.behave(sync_methods=False)
    network.behave(host="relay", sync_methods=False)
    assert ask(client, relay, "listReposByCollection", **query).status_code == 501
    assert ask(client, served.pds_urls["pds-1"], "listRepos").status_code == 501
    assert ask(client, served.pds_urls["pds-1"], "listReposByCollection", **query).status_code == 501


def test_new_accounts_come_anywhere_in_a_list_by_did(
    network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    network.behave(host="relay", account_order="did")
    listed = [network.add_account({POST: 1}) for _ in range(5)]
    found = dids(pages(client, served.relay_url, "listReposByCollection", collection=POST, limit=2))
    assert found == sorted(listed) != listed


def test_the_relay_is_taken_down_and_brought_up_again(
    network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    network.take_down_host("relay")
    with pytest.raises(httpx.ConnectError):
        client.get(f"{served.relay_url}/xrpc/_health")
    network.bring_up_host("relay")
    assert client.get(f"{served.relay_url}/xrpc/_health").status_code == 200
