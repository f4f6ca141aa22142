"""The sample network keeps its own promises; what is tested against it is only as good as it is."""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from parity_dagster.identifiers import tid_time
from parity_dagster.sample_network import (
    DIALECTS,
    FOLLOW,
    LIKE,
    ODD_KINDS,
    POST,
    PROFILE,
    Fault,
    Running,
    SampleNetwork,
    benchmark_network,
    demo_network,
    run_in_thread,
)
from parity_dagster.sample_network.accounts import make_did, make_tid
from parity_dagster.sample_network.blocks import make_cid
from parity_dagster.sample_network.content import make_value
from parity_dagster.sample_network.generated import Generated
from parity_dagster.sample_network.paging import KeptPages
from parity_dagster_tests.quick import quick


def ask(client: httpx.Client, url: str, method: str, **params: Any) -> httpx.Response:
    return client.get(f"{url}/xrpc/{method}", params=params)


def list_page(client: httpx.Client, url: str, did: str, nsid: str, **params: Any) -> httpx.Response:
    query = {"repo": did, "collection": nsid, "limit": 100} | params
    return ask(client, url, "com.atproto.repo.listRecords", **query)


def walk(client: httpx.Client, url: str, did: str, nsid: str, pages: int = 1000) -> dict[str, tuple[Any, Any]]:
    """Page to the end as a tolerant client does: rkey → (cid, value)."""
    found: dict[str, tuple[Any, Any]] = {}
    cursor: dict[str, str] = {}
    for _ in range(pages):
        page = list_page(client, url, did, nsid, **cursor).json()
        for record in page["records"]:
            found[record["uri"].rsplit("/", 1)[1]] = (record["cid"], record["value"])
        if not page.get("cursor"):
            return found
        cursor = {"cursor": page["cursor"]}
    raise AssertionError("the list has no end")


def truth(network: SampleNetwork, did: str, nsid: str) -> dict[str, tuple[Any, Any]]:
    return {rkey: (cid, json.loads(value)) for rkey, (cid, value) in network.records(did, nsid).items()}


def test_every_pair_of_the_demo_network_is_served_as_it_is_held(client: httpx.Client) -> None:
    network = demo_network()
    assert sum(network.counts().values()) == 3000
    assert {nsid for _, nsid in network.counts()} == {POST, LIKE, FOLLOW, PROFILE, "app.bsky.feed.repost"}
    with run_in_thread(network) as running:
        for did, nsid in network.counts():
            document = client.get(f"{running.plc_url}/{did}").json()
            assert document["id"] == did
            url = document["service"][0]["serviceEndpoint"]
            assert url in running.pds_urls.values()
            found = walk(client, url, did, nsid)
            assert found == truth(network, did, nsid)
            assert len(found) == network.counts()[did, nsid]
    assert list(network.records(network.dids[0], PROFILE)) == ["self"]


def test_the_same_seed_makes_the_same_network() -> None:
    one, other, different = demo_network(), demo_network(), demo_network(seed=2)
    assert one.counts() == other.counts()
    assert one.records(one.dids[0], POST) == other.records(other.dids[0], POST)
    assert not set(one.dids) & set(different.dids)


def test_a_network_starts_within_a_third_of_a_second_and_several_run_at_once(client: httpx.Client) -> None:
    started = time.perf_counter()
    with run_in_thread(demo_network()) as one, run_in_thread(SampleNetwork(hosts=20)) as other:
        assert time.perf_counter() - started < 0.6
        urls = {one.plc_url, one.control_url, *one.pds_urls.values()}
        urls |= {other.plc_url, other.control_url, *other.pds_urls.values()}
        assert len(urls) == 4 + 22
        for url in (*one.pds_urls.values(), *other.pds_urls.values()):
            assert ask(client, url, "_health").status_code == 200


def test_identifiers_have_the_form_of_their_specifications() -> None:
    did = make_did(1, 2)
    assert len(did) == 32
    assert set(did[8:]) <= set("abcdefghijklmnopqrstuvwxyz234567")
    assert make_tid(1_700_000_000_000_000) < make_tid(1_700_000_000_000_001)
    generated = Generated(did, POST, 250)
    cids = [make_cid(b"x")] + [generated.record(index)[0] for index in (0, 99, 249)]
    for cid in cids:
        data = base64.b32decode(cid[1:].upper() + "=" * (-len(cid[1:]) % 8))
        assert data[:4] == bytes((1, 0x71, 0x12, 0x20))
        assert len(data) == 36
    keys = generated.rkeys()
    assert keys == sorted(keys, reverse=True)
    assert all(len(key) == 13 and key[0] in "234567abcdefghij" for key in keys)
    assert [generated.index(key) for key in keys] == list(range(250))


def test_facets_point_at_the_bytes_they_are_about() -> None:
    seen = 0
    for value in (json.loads(value) for _, value in Generated(make_did(1, 1), POST, 800).records().values()):
        for facet in value.get("facets", []):
            span = value["text"].encode()[facet["index"]["byteStart"] : facet["index"]["byteEnd"]].decode()
            assert span.startswith(("#", "@", "https://"))
            seen += 1
    assert seen > 20
    assert make_value(PROFILE, random.Random(1), did="d", created_at="t")["displayName"]


@pytest.mark.parametrize("nsid", [POST, LIKE, FOLLOW, "com.example.review"])
def test_a_generated_page_at_any_place_equals_the_records_one_by_one(nsid: str) -> None:
    generated = Generated(make_did(1, 3), nsid, 345)
    records = generated.records()
    assert len(records) == 345
    assert len({cid for cid, _ in records.values()}) == 345
    for start, stop in ((0, 100), (37, 137), (99, 101), (0, 345), (344, 345), (10, 10)):
        page = json.loads(b"[" + generated.entries(start, stop) + b"]")
        keys = list(records)[start:stop]
        assert [entry["uri"] for entry in page] == [f"at://{generated.did}/{nsid}/{key}" for key in keys]
        assert [(entry["cid"], entry["value"]) for entry in page] == [
            (records[key][0], json.loads(records[key][1])) for key in keys
        ]
    keys = generated.rkeys()
    assert generated.after("zzzz") == 0
    assert generated.after("2") == 345
    assert generated.after(keys[10]) == 11
    assert generated.after(keys[10] + "-") == 10


def test_the_reference_dialect_is_that_of_the_reference(served: Running, client: httpx.Client) -> None:
    network, url = served.network, served.pds_urls["pds-1"]
    did = network.add_account({POST: 200}, host="pds-1")
    assert len(list_page(client, url, did, POST, limit=50).json()["records"]) == 50
    plain = ask(client, url, "com.atproto.repo.listRecords", repo=did, collection=POST).json()
    assert len(plain["records"]) == 50
    page = list_page(client, url, did, POST).json()
    keys = [record["uri"].rsplit("/", 1)[1] for record in page["records"]]
    assert keys == sorted(keys, reverse=True)
    assert page["cursor"] == keys[-1]
    last = list_page(client, url, did, POST, cursor=page["cursor"]).json()
    assert last["cursor"] == min(network.records(did, POST))
    assert list_page(client, url, did, POST, cursor=last["cursor"]).json() == {"records": []}
    assert list_page(client, url, did, "com.example.none").json() == {"records": []}
    backwards = list_page(client, url, did, POST, reverse="true").json()["records"]
    assert backwards[0]["uri"].endswith(min(network.records(did, POST)))
    for limit in ("0", "101", "x", "-1"):
        answer = list_page(client, url, did, POST, limit=limit)
        assert (answer.status_code, answer.json()["error"]) == (400, "InvalidRequest")
    assert ask(client, url, "com.atproto.repo.listRecords", repo=did).status_code == 400
    assert ask(client, url, "com.example.unknown").status_code == 501


@pytest.mark.parametrize("dialect", DIALECTS)
def test_in_every_dialect_a_tolerant_client_finds_all_records(dialect: str, client: httpx.Client) -> None:
    network = SampleNetwork()
    network.behave(host="pds-1", dialect=dialect)
    did = network.add_account({POST: 345, LIKE: 100, FOLLOW: 0})
    changed = list(network.records(did, POST))[5]
    network.update_record(did, POST, {"text": "changed"}, rkey=changed)
    network.put_record(did, POST)
    network.delete_record(did, POST, list(network.records(did, POST))[200])
    with run_in_thread(network) as running:
        for nsid in (POST, LIKE, FOLLOW):
            found = walk(client, running.pds_urls["pds-1"], did, nsid)
            assert found == truth(network, did, nsid)
        assert len(truth(network, did, POST)) == 345


def test_the_dialects_differ_on_the_wire_as_the_quirks_say(served: Running, client: httpx.Client) -> None:
    network, url = served.network, served.pds_urls["pds-1"]
    did = network.add_account({POST: 150}, host="pds-1")
    stranger = make_did(9, 9)
    keys = sorted(network.records(did, POST))

    network.behave(host="pds-1", dialect="arroba")
    page = list_page(client, url, did, POST).json()
    assert page["cursor"] == f"{POST}/{keys[99]}"
    second = list_page(client, url, did, POST, cursor=page["cursor"]).json()
    assert second["records"][0] == page["records"][-1]
    assert "cursor" not in second
    assert list_page(client, url, did, POST, cursor=keys[5]).status_code == 400

    network.behave(host="pds-1", dialect="cocoon")
    oldest = network.put_record(did, POST, rkey="2222222222222")
    page = list_page(client, url, did, POST).json()
    assert page["records"][0]["uri"].endswith(oldest)
    assert page["cursor"] not in keys
    assert list_page(client, url, stranger, POST).json() == {"records": []}
    assert len(list_page(client, url, did, POST, limit=1000).json()["records"]) == 151

    network.behave(host="pds-1", dialect="tranquil")
    assert list_page(client, url, did, POST, cursor=f"{POST}/x").json() == list_page(client, url, did, POST).json()
    assert list_page(client, url, did, POST).json()["records"] == []  # every third page is empty…
    network.behave(host="pds-1", dialect="rsky")
    assert list_page(client, url, did, POST, limit=101).status_code == 500
    assert list_page(client, url, stranger, POST).status_code == 500
    network.behave(host="pds-1", dialect="millipds", unknown_repo="plain")
    answer = list_page(client, url, stranger, POST)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "text/plain")
    handle = network.accounts[did].shown_handle
    assert list_page(client, url, handle, POST).json()["records"][0]["uri"].startswith(f"at://{handle}/")
    network.behave(host="pds-1", dialect="cirrus")
    assert list_page(client, url, stranger, POST).status_code == 404


def test_lists_without_end_have_none(served: Running, client: httpx.Client) -> None:
    network, url = served.network, served.pds_urls["pds-1"]
    did = network.add_account({POST: 250}, host="pds-1")
    for loop, distinct_cursors, distinct_records in (("ignore", 1, 100), ("same", 1, 200), ("advance", 20, 100)):
        network.behave(host="pds-1", loop=loop)
        cursors, seen = set(), set()
        cursor: dict[str, str] = {}
        for _ in range(20):
            page = list_page(client, url, did, POST, **cursor).json()
            cursor = {"cursor": page["cursor"]}
            cursors.add(page["cursor"])
            seen |= {record["uri"] for record in page["records"]}
        assert (len(cursors), len(seen)) == (distinct_cursors, distinct_records), loop


def test_pages_can_be_short_empty_or_spoiled_by_one_record(served: Running, client: httpx.Client) -> None:
    network, url = served.network, served.pds_urls["pds-1"]
    did = network.add_account({POST: 60}, host="pds-1")
    network.behave(host="pds-1", page_cap=7, empty_every=2)
    assert walk(client, url, did, POST) == truth(network, did, POST)
    sizes = [len(list_page(client, url, did, POST).json()["records"]) for _ in range(4)]
    assert sorted(sizes) == [0, 0, 7, 7]
    network.behave_normally()
    keys = sorted(network.records(did, POST), reverse=True)
    network.behave(did=did, collection=POST, poison=(keys[30],))
    assert list_page(client, url, did, POST).status_code == 500
    assert list_page(client, url, did, POST, limit=30).status_code == 200
    assert list_page(client, url, did, POST, cursor=keys[30]).status_code == 200
    network.behave(did=did, collection=POST, poison_status=400)
    assert list_page(client, url, did, POST).status_code == 400


@pytest.mark.parametrize("kind", quick(16, ODD_KINDS))
def test_an_odd_record_is_sent_byte_for_byte(kind: str, client: httpx.Client) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    ((rkey, named),) = network.add_odd(did, POST, [kind]).items()
    assert named == kind
    assert network.odd_records(did, POST) == {rkey: kind}
    with run_in_thread(network) as running:
        answer = list_page(client, running.pds_urls["pds-1"], did, POST)
    record = network.accounts[did].repo.writable(POST).own[rkey]
    entry = record.as_entry(did, POST)
    assert answer.content.count(entry) == (2 if kind == "duplicate" else 1)
    assert record.entry is not None or network.records(did, POST)[rkey][1] in answer.content
    if kind in ("invalid-utf8", "encoded-surrogate"):
        with pytest.raises(UnicodeDecodeError):
            answer.content.decode()
    elif kind not in ("very-deep", "giant-int"):
        assert len(json.loads(answer.content)["records"]) == (5 if kind == "duplicate" else 4)


def test_all_odd_records_at_once_leave_the_page_well_formed_but_for_bad_bytes(
    served: Running, client: httpx.Client
) -> None:
    did = served.network.add_account({POST: 10}, host="pds-1")
    kinds = [kind for kind in ODD_KINDS if kind not in ("invalid-utf8", "encoded-surrogate", "very-deep", "giant-int")]
    assert len(served.network.add_odd(did, POST, kinds)) == len(kinds) > 35
    page = list_page(client, served.pds_urls["pds-1"], did, POST).json()
    assert len(page["records"]) == 10 + len(kinds) + 1


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        ("500", 500, "InternalServerError"), ("502", 502, "<html>"), ("503", 503, "UpstreamFailure"),
        ("400", 400, "InvalidRequest"), ("404", 404, "NotFound"), ("refuse-cursor", 400, "Malformed cursor"),
        ("429", 429, "RateLimitExceeded"), ("429-bare", 429, "RateLimitExceeded"), ("html", 200, "<!doctype"),
        ("wrong-shape", 200, '"cursor":7'), ("redirect", 302, ""), ("many-headers", 200, "records"),
    ],
)  # fmt: skip
def test_a_fault_with_a_status_answers_so_once_and_then_no_more(
    kind: Any, status: int, said: str, served: Running, client: httpx.Client
) -> None:
    did = served.network.add_account({POST: 5}, host="pds-1")
    served.network.behave(host="pds-1", faults=(Fault(kind=kind, times=1, size=50),))
    answer = list_page(client, served.pds_urls["pds-1"], did, POST)
    assert (answer.status_code, said in answer.text) == (status, True)
    assert len(list_page(client, served.pds_urls["pds-1"], did, POST).json()["records"]) == 5
    assert served.network.log.count(method="listRecords") == 2


def test_429_comes_with_seconds_a_date_or_only_a_reset(served: Running, client: httpx.Client) -> None:
    network, url = served.network, served.pds_urls["pds-1"]
    did = network.add_account({POST: 5}, host="pds-1")
    kinds: list[Any] = ["429", "429-date", "429-reset", "429-bare"]
    network.behave(host="pds-1", faults=tuple(Fault(kind=kind, times=1, seconds=90) for kind in kinds))
    seconds, date, reset, bare = (list_page(client, url, did, POST).headers for _ in kinds)
    assert seconds["retry-after"] == "90"
    assert 80 < parsedate_to_datetime(date["retry-after"]).timestamp() - time.time() < 91
    assert 80 < int(reset["ratelimit-reset"]) - time.time() < 91
    assert "retry-after" not in reset
    assert "retry-after" not in bare
    assert "ratelimit-reset" not in bare


@pytest.mark.parametrize("kind", ["cut", "reset", "long-length"])
def test_a_cut_connection_is_cut(kind: Any, served: Running, client: httpx.Client) -> None:
    did = served.network.add_account({POST: 50}, host="pds-1")
    served.network.behave(host="pds-1", faults=(Fault(kind=kind, times=1),))
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        list_page(client, served.pds_urls["pds-1"], did, POST)
    assert list_page(client, served.pds_urls["pds-1"], did, POST).status_code == 200


@pytest.mark.parametrize("kind", ["bad-json", "truncated-json", "empty-body", "bad-utf8", "short-length"])
def test_a_broken_body_is_not_json(kind: Any, served: Running, client: httpx.Client) -> None:
    did = served.network.add_account({POST: 50}, host="pds-1")
    served.network.behave(host="pds-1", faults=(Fault(kind=kind, times=1),))
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
        json.loads(list_page(client, served.pds_urls["pds-1"], did, POST).content)


def test_slow_answers_are_slow_and_a_hang_never_ends(served: Running, client: httpx.Client) -> None:
    network, url = served.network, served.pds_urls["pds-1"]
    did = network.add_account({POST: 50}, host="pds-1")

    def seconds() -> float:
        started = time.perf_counter()
        assert len(list_page(client, url, did, POST).json()["records"]) == 50
        return time.perf_counter() - started

    network.behave(host="pds-1", latency=0.2)
    assert seconds() >= 0.2
    network.behave(host="pds-1", faults=(Fault(kind="drip", seconds=0.4),))
    assert seconds() > 0.3
    network.behave(host="pds-1", faults=(Fault(kind="latency", seconds=0.3),))
    assert seconds() >= 0.3
    network.behave(host="pds-1", faults=(Fault(kind="hang"),))
    with pytest.raises(httpx.ReadTimeout):
        client.get(f"{url}/xrpc/_health", timeout=0.3)


def test_bodies_are_gzipped_padded_or_bombs_on_demand(served: Running, client: httpx.Client) -> None:
    network, url = served.network, served.pds_urls["pds-1"]
    did = network.add_account({POST: 100}, host="pds-1")
    plain = list_page(client, url, did, POST)
    network.behave(host="pds-1", gzip=True)
    packed = list_page(client, url, did, POST)
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json() == plain.json()
    assert int(packed.headers["content-length"]) < len(plain.content) / 2
    assert "content-encoding" not in client.get(packed.url, headers={"accept-encoding": "identity"}).headers
    network.behave(host="pds-1", gzip=False, faults=(Fault(kind="padded", size=3_000_000, times=1),))
    assert len(list_page(client, url, did, POST).content) == 3_000_000
    network.behave(host="pds-1", faults=(Fault(kind="gzip-bomb", size=2**24, times=1),))
    with client.stream("GET", packed.url) as answer:
        raw = b"".join(answer.iter_raw())
    assert len(raw) < 2**16
    assert len(gzip.decompress(raw)) == 2**24
    network.behave(host="pds-1", pretty=True, faults=())
    assert list_page(client, url, did, POST).json() == plain.json()
    assert list_page(client, url, did, POST).content != plain.content


def test_faults_strike_when_they_are_told_to(served: Running, client: httpx.Client) -> None:
    network, url = served.network, served.pds_urls["pds-1"]
    did = network.add_account({POST: 150, LIKE: 5}, host="pds-1")

    def statuses(number: int, nsid: str = POST, **params: Any) -> list[int]:
        return [list_page(client, url, did, nsid, **params).status_code for _ in range(number)]

    network.behave(host="pds-1", faults=(Fault(kind="500", skip=1, every=3),))
    assert statuses(7) == [200, 200, 200, 500, 200, 200, 500]
    network.behave(host="pds-1", faults=(Fault(kind="500", skip=1, times=2),))
    assert statuses(5) == [200, 500, 500, 200, 200]
    network.behave(host="pds-1", faults=(Fault(kind="500", with_cursor=True),))
    assert statuses(1) + statuses(1, cursor="3z") == [200, 500]
    network.behave(host="pds-1", faults=(Fault(kind="500", method="getRepoStatus"),))
    assert statuses(1) == [200]
    assert ask(client, url, "com.atproto.sync.getRepoStatus", did=did).status_code == 500
    chance = (Fault(kind="500", probability=0.5),)
    network.behave(host="pds-1", faults=chance, seed=3)
    first = statuses(30)
    network.behave(host="pds-1", faults=chance, seed=3)
    assert statuses(30) == first
    assert 5 < first.count(500) < 25
    network.behave_normally()
    network.behave(did=did, collection=POST, faults=(Fault(kind="503"),))
    assert statuses(1) + statuses(1, LIKE) == [503, 200]
    network.behave(host="plc", faults=(Fault(kind="502"),))
    assert client.get(f"{served.plc_url}/{did}").status_code == 502
    with pytest.raises(ValueError, match="no fault is called"):
        Fault(kind="explode")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no colour"):
        network.behave(colour="red")
    with pytest.raises(KeyError, match="pds-77"):
        network.behave(host="pds-77", gzip=True)
    with pytest.raises(ValueError, match="no dialect"):
        network.behave(dialect="klingon")


def test_a_rate_limit_is_announced_enforced_and_lifted(served: Running, client: httpx.Client) -> None:
    network, url = served.network, served.pds_urls["pds-1"]
    did = network.add_account({POST: 5}, host="pds-1")
    assert "ratelimit-limit" not in list_page(client, url, did, POST).headers
    network.behave(host="pds-1", rate_limit=3, rate_window=1.0)
    network.behave(did=did, collection=POST, rate_limit=0)  # a narrower scope does not lift the host's limit
    answers = [list_page(client, url, did, POST) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert answers[0].headers["ratelimit-policy"] == "3;w=1"
    assert answers[3].headers["retry-after"] == "1"
    assert answers[3].json()["error"] == "RateLimitExceeded"
    time.sleep(1.1)
    assert list_page(client, url, did, POST).status_code == 200


def test_a_host_can_go_away_and_come_back_on_its_port(served: Running, client: httpx.Client) -> None:
    network, urls = served.network, served.pds_urls
    did = network.add_account({POST: 5}, host="pds-1")
    list_page(client, urls["pds-1"], did, POST)
    network.take_down_host("pds-1")
    for _ in range(2):
        with pytest.raises((httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError)):
            list_page(client, urls["pds-1"], did, POST)
    assert ask(client, urls["pds-2"], "_health").status_code == 200
    network.bring_up_host("pds-1")
    assert served.pds_urls == urls
    assert len(list_page(client, urls["pds-1"], did, POST).json()["records"]) == 5
    network.take_down_host("plc")
    with pytest.raises(httpx.ConnectError):
        client.get(f"{served.plc_url}/{did}")
    network.bring_up_host("plc")
    assert client.get(f"{served.plc_url}/{did}").status_code == 200


@pytest.mark.long
def test_a_host_that_flaps_is_down_when_down_and_up_when_up(served: Running, client: httpx.Client) -> None:
    network, url = served.network, served.pds_urls["pds-1"]
    for _ in range(20):
        network.take_down_host("pds-1")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=2)
        network.bring_up_host("pds-1")
        assert httpx.get(f"{url}/xrpc/_health", trust_env=False).status_code == 200


def test_hosts_and_accounts_may_join_while_it_is_served(served: Running, client: httpx.Client) -> None:
    host = served.network.add_host("late")
    did = served.network.add_account({POST: 2}, host="late")
    assert client.get(f"{served.plc_url}/{did}").json()["service"][0]["serviceEndpoint"] == host.url
    assert len(walk(client, host.url, did, POST)) == 2


def test_writes_are_seen_at_once_and_advance_the_revision(served: Running, client: httpx.Client) -> None:
    network, url = served.network, served.pds_urls["pds-1"]
    did = network.add_account({POST: 205, LIKE: [{"subject": {"uri": "at://x"}}]}, host="pds-1")
    assert network.counts() == {(did, POST): 205, (did, LIKE): 1}
    revisions = [network.rev(did)]
    keys = list(network.records(did, POST))
    assert network.put_record(did, POST) > max(keys)
    revisions.append(network.rev(did))
    network.update_record(did, POST, {"text": "edited"}, rkey=keys[3])
    revisions.append(network.rev(did))
    assert network.delete_record(did, POST, keys[7])
    revisions.append(network.rev(did))
    assert not network.delete_record(did, POST, keys[7])
    assert not network.delete_record(did, POST, "nothing")
    assert revisions == sorted(set(revisions))
    assert network.rev(did) == revisions[-1]
    found = walk(client, url, did, POST)
    assert found == truth(network, did, POST)
    assert len(found) == network.counts()[did, POST] == 205
    assert found[keys[3]][1] == {"text": "edited"}
    assert keys[7] not in found
    network.put_record(did, POST, b'{"text":  "again"}', rkey=keys[7])
    assert b'{"text":  "again"}' in list_page(client, url, did, POST).content
    latest = ask(client, url, "com.atproto.sync.getLatestCommit", did=did).json()
    assert latest["rev"] == network.rev(did)
    one = ask(client, url, "com.atproto.repo.getRecord", repo=did, collection=POST, rkey=keys[3]).json()
    assert one["value"] == {"text": "edited"}
    missing = ask(client, url, "com.atproto.repo.getRecord", repo=did, collection=POST, rkey="none")
    assert missing.json()["error"] == "RecordNotFound"


@pytest.mark.parametrize(
    ("status", "word"),
    [("deactivated", "RepoDeactivated"), ("takendown", "RepoTakendown"), ("suspended", "RepoSuspended")],
)
def test_an_inactive_account_is_described_in_the_lexicons_words(
    status: Any, word: str, served: Running, client: httpx.Client
) -> None:
    network, url = served.network, served.pds_urls["pds-1"]
    did = network.add_account({POST: 5}, host="pds-1")
    active = ask(client, url, "com.atproto.sync.getRepoStatus", did=did).json()
    assert active == {"did": did, "active": True, "rev": network.rev(did)}
    network.set_status(did, status)
    answer = list_page(client, url, did, POST)
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "InvalidRequest", "message": f"Could not find repo: {did}"},
    )
    status_answer = ask(client, url, "com.atproto.sync.getRepoStatus", did=did).json()
    assert status_answer == {"did": did, "active": False, "status": status}
    assert ask(client, url, "com.atproto.sync.getLatestCommit", did=did).json()["error"] == word
    assert ask(client, url, "com.atproto.repo.describeRepo", repo=did).json()["error"] == word
    network.set_status(did, "active")
    assert list_page(client, url, did, POST).status_code == 200
    network.behave(host="pds-1", sync_methods=False)
    assert ask(client, url, "com.atproto.sync.getRepoStatus", did=did).status_code == 501


def test_a_host_may_be_wrong_about_its_revision(served: Running, client: httpx.Client) -> None:
    network, url = served.network, served.pds_urls["pds-1"]
    did = network.add_account({POST: 5}, host="pds-1")
    network.behave(host="pds-1", rev_ahead=3600)
    told = ask(client, url, "com.atproto.sync.getLatestCommit", did=did).json()["rev"]
    assert tid_time(told) - tid_time(network.rev(did)) == timedelta(hours=1)


def test_revisions_may_tell_the_time() -> None:
    now = 1_790_000_000_000_000
    network = SampleNetwork(clock=lambda: now)
    did = network.add_account({POST: 1})
    assert network.rev(did) == make_tid(now)
    network.put_record(did, POST)
    assert network.rev(did) == make_tid(now + 1), "each write has a revision of its own"
    now += 1_000
    network.put_record(did, POST)
    assert network.rev(did) == make_tid(now)


@pytest.mark.parametrize("old", ["deactivated", "gone", "stale"])
def test_a_migrated_account_lives_on_its_new_host_only(old: Any, served: Running, client: httpx.Client) -> None:
    network, urls = served.network, served.pds_urls
    did = network.add_account({POST: 5}, host="pds-1")
    network.migrate(did, "pds-2", old=old)
    network.put_record(did, POST)
    document = client.get(f"{served.plc_url}/{did}").json()
    assert document["service"][0]["serviceEndpoint"] == urls["pds-2"]
    assert len(walk(client, urls["pds-2"], did, POST)) == 6
    left = list_page(client, urls["pds-1"], did, POST)
    status = ask(client, urls["pds-1"], "com.atproto.sync.getRepoStatus", did=did).json()
    if old == "stale":
        assert len(left.json()["records"]) == 5
    else:
        assert left.status_code == 400
        assert status.get("status", status.get("error")) == {"deactivated": old, "gone": "RepoNotFound"}[old]


def test_the_directory_knows_tombstones_strangers_and_forgeries(served: Running, client: httpx.Client) -> None:
    network, plc = served.network, served.plc_url
    did, gone = network.add_account(), network.add_account()
    assert client.get(f"{plc}/{make_did(5, 5)}").status_code == 404
    network.tombstone(gone)
    assert client.get(f"{plc}/{gone}").status_code == 410
    network.set_document(did, {"id": did, "service": []})
    assert client.get(f"{plc}/{did}").json() == {"id": did, "service": []}
    network.set_document(did, b"not json")
    assert client.get(f"{plc}/{did}").content == b"not json"
    network.set_document(did, None)
    document = client.get(f"{plc}/{did}").json()
    assert document["alsoKnownAs"] == [f"at://{network.accounts[did].handle or document['alsoKnownAs'][0][5:]}"]
    network.drop_repo(did)
    url = network.accounts[did].host.url
    assert ask(client, url, "com.atproto.sync.getRepoStatus", did=did).json()["error"] == "RepoNotFound"
    assert client.get(f"{plc}/nonsense").status_code == 404


def test_did_web_and_handles_are_answered_by_the_host_header(served: Running, client: httpx.Client) -> None:
    network, url = served.network, served.pds_urls["pds-1"]
    web = network.add_account({POST: 1}, did="did:web:blog.example.com", handle="blog.example.com", host="pds-1")
    headers = {"host": "blog.example.com"}
    assert client.get(f"{url}/.well-known/did.json", headers=headers).json()["id"] == web
    assert client.get(f"{url}/.well-known/atproto-did", headers=headers).text == web
    assert client.get(f"{url}/.well-known/did.json").status_code == 404
    assert client.get(f"{url}/.well-known/atproto-did").status_code == 404
    resolved = ask(client, url, "com.atproto.identity.resolveHandle", handle="blog.example.com").json()
    assert resolved == {"did": web}
    assert walk(client, url, web, POST) == truth(network, web, POST)
    described = ask(client, url, "com.atproto.repo.describeRepo", repo="blog.example.com").json()
    assert (described["did"], described["collections"]) == (web, [POST])
    assert "did" in ask(client, url, "com.atproto.server.describeServer").json()
    listed = ask(client, url, "com.atproto.sync.listRepos").json()["repos"]
    assert [row["did"] for row in listed] == [web]


def test_the_log_tells_which_pages_were_asked(served: Running, client: httpx.Client) -> None:
    network, url = served.network, served.pds_urls["pds-1"]
    did = network.add_account({POST: 150, LIKE: 1}, host="pds-1")
    walk(client, url, did, POST)
    keys = sorted(network.records(did, POST), reverse=True)
    assert network.log.cursors(did, POST) == [None, keys[99], keys[149]]
    assert network.log.cursors(did, LIKE) == []
    network.behave(host="pds-1", faults=(Fault(kind="reset", times=1), Fault(kind="500", times=1)))
    with pytest.raises(httpx.RemoteProtocolError):
        list_page(client, url, did, LIKE)
    list_page(client, url, did, LIKE)
    assert [entry.status for entry in network.log.entries(collection=LIKE)] == [0, 500]
    assert network.log.count(host="pds-1") == 5
    assert network.log.count(status=200, method="com.atproto.repo.listRecords") == 3
    assert network.log.entries(host="pds-1", did=did, status=500)[0].limit == "100"
    network.log.clear()
    assert network.log.count() == 0


def test_another_process_can_steer_it_over_the_control_port(served: Running, client: httpx.Client) -> None:
    network, control = served.network, served.control_url

    def post(name: str, /, **arguments: Any) -> httpx.Response:
        return client.post(f"{control}/control/{name}", json=arguments)

    did = post("add_account", collections={POST: 5, LIKE: [{"a": 1}]}, host="pds-1").json()["result"]
    assert network.counts() == {(did, POST): 5, (did, LIKE): 1}
    host = post("add_host", name="pds-9").json()["result"]
    assert ask(client, host["url"], "_health").status_code == 200
    behaviour = post("behave", host="pds-1", faults=[{"kind": "500", "times": 1}], poison=["x"]).json()["result"]
    assert behaviour["faults"][0]["kind"] == "500"
    url = served.pds_urls["pds-1"]
    assert [list_page(client, url, did, POST).status_code for _ in range(2)] == [500, 200]
    log = client.get(f"{control}/control/log", params={"did": did, "status": 500}).json()["requests"]
    assert [(entry["host"], entry["collection"], entry["status"]) for entry in log] == [("pds-1", POST, 500)]
    rkey = post("put_record", did=did, nsid=LIKE, value={"b": "ü"}).json()["result"]
    odd = post("add_odd", did=did, nsid=LIKE, kinds=["nul"]).json()["result"]
    records = client.get(f"{control}/control/records", params={"did": did, "collection": LIKE}).json()["records"]
    held = {record["rkey"]: record for record in records}
    assert held[rkey]["value"].encode("latin-1") == '{"b":"ü"}'.encode()
    assert {record["rkey"]: record["odd"] for record in records if record["odd"]} == odd
    assert client.get(f"{control}/control/counts").json()["counts"] == [[did, LIKE, 3], [did, POST, 5]]
    asked = client.get(f"{control}/control/requests").json()["requests"]
    assert sum(count for *_, count in asked) == served.network.log.count()
    assert ["pds-1", "com.atproto.repo.listRecords", 500, len(log)] in asked
    assert client.get(f"{control}/control/network").json()["plc_url"] == served.plc_url
    post("take_down_host", host="pds-9")
    with pytest.raises((httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError)):
        ask(client, host["url"], "_health")
    post("migrate", did=did, new_host="pds-2")
    assert network.accounts[did].host.name == "pds-2"
    post("clear_log")
    assert network.log.count() == 0
    for name, arguments in (("behave", {"colour": 1}), ("migrate", {"did": "x"}), ("tombstone", {})):
        assert post(name, **arguments).status_code == 400
    assert post("lock").status_code == 404
    assert client.get(f"{control}/control/behave").status_code == 404


def test_requests_may_arrive_in_pieces_or_several_at_once(served: Running) -> None:
    did = served.network.add_account({LIKE: 2}, host="pds-1")
    port = int(served.pds_urls["pds-1"].rsplit(":", 1)[1])
    path = f"/xrpc/com.atproto.repo.listRecords?repo={did.replace(':', '%3A')}&collection={LIKE}"
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request * 2 + request[:40])
        time.sleep(0.05)
        connection.sendall(request[40:])
        received = b""
        while received.count(b'{"records":[{') < 3:
            received += connection.recv(65536)
        connection.sendall(b"rubbish\r\n\r\n")
        while b"400 Bad Request" not in received:
            received += connection.recv(65536)
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 3


def start_process(*arguments: str, code: str = "") -> subprocess.Popen[str]:
    run = ["-c", code] if code else ["-m", "parity_dagster.sample_network"]
    return subprocess.Popen(
        [sys.executable, *run, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_a_process_it_prints_where_it_is_and_ends_on_a_signal(
    number: signal.Signals, tmp_path: Path, client: httpx.Client
) -> None:
    dids = tmp_path / "dids.txt"
    process = start_process("--shape", "narrow", "--scale", "0.01", "--dids-file", str(dids), "--latency", "0.01")
    try:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        assert (found["accounts"], len(found["pds_urls"])) == (50, 4)
        assert dids.read_text().split() == found["dids"]
        url = client.get(f"{found['plc_url']}/{found['dids'][0]}").json()["service"][0]["serviceEndpoint"]
        assert len(walk(client, url, found["dids"][0], POST)) == 20
    finally:
        os.kill(process.pid, number)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.processes
def test_it_serves_without_uvloop_too(client: httpx.Client) -> None:
    code = "import sys; sys.modules['uvloop'] = None\nfrom parity_dagster.sample_network.command import main; main()"
    process = start_process(code=code)
    try:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        did = found["dids"][0]
        url = client.get(f"{found['plc_url']}/{did}").json()["service"][0]["serviceEndpoint"]
        assert len(walk(client, url, did, POST)) > 100
        control = found["control_url"]
        for name in ("take_down_host", "bring_up_host"):
            assert client.post(f"{control}/control/{name}", json={"host": "pds-1"}).status_code == 200
        assert ask(client, url, "_health").status_code == 200
    finally:
        process.terminate()
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.processes
def test_a_taken_port_is_one_line_that_names_the_cure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start_process("--plc-port", str(taken.getsockname()[1]))
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert errors.startswith("Error: cannot listen")
    assert len(errors.splitlines()) == 1


@pytest.mark.long
def test_the_big_shapes_are_made_at_once_and_take_little_memory() -> None:
    code = (
        "import resource, time\n"
        "from parity_dagster.sample_network import benchmark_network\n"
        "base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "networks = [benchmark_network(shape) for shape in ('wide', 'narrow', 'whale', 'latency', 'crowd')]\n"
        "print(sum(sum(network.counts().values()) for network in networks))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)\n"
    )
    process = start_process(code=code)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    records, kilobytes = (int(line) for line in output.split())
    assert 300_000 + 200_000 + 500_000 + 300_000 + 10_000 * 3 * 14 < records < 1_300_000 + 10_000 * 3 * 17
    assert kilobytes < 40_000


def test_shapes_have_the_sizes_they_are_named_for() -> None:
    wide = benchmark_network("wide")
    assert (len(wide.dids), set(wide.counts().values())) == (100, {1000})
    latency = benchmark_network("latency", scale=0.2)
    assert len(latency.hosts) == len(latency.dids) == 20
    assert latency.scopes.find("pds-7").behaviour.latency == 0.05
    limited = benchmark_network("limited")
    assert (len(limited.dids), len(limited.counts()), set(limited.counts().values())) == (100, 500, {116})
    behaviour = limited.scopes.find("pds-1").behaviour
    assert (behaviour.rate_limit, behaviour.repo_rate_limit, behaviour.rate_window) == (50, 100, 5.0)
    assert list(benchmark_network("whale").counts().values()) == [500_000]
    crowd = benchmark_network("crowd", scale=0.01).counts()
    assert (len(crowd), min(crowd.values()) >= 1, max(crowd.values()) <= 30) == (300, True, True)
    with pytest.raises(ValueError, match="no shape"):
        benchmark_network("round")  # type: ignore[arg-type]


def test_a_kept_page_is_the_page_that_would_be_rendered(client: httpx.Client) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 250})
    held = Generated(did, POST, 250)
    kept = KeptPages(len(held.entries(0, 100)))
    for start, stop in [(0, 100), (0, 100), (100, 200), (100, 200), (0, 99)]:
        assert kept.entries(held, start, stop) == held.entries(start, stop)
    network.kept_pages = KeptPages(10**6)
    with run_in_thread(network) as running:
        url = running.pds_urls["pds-1"]
        for _ in range(2):
            assert walk(client, url, did, POST) == truth(network, did, POST)
        network.put_record(did, POST, {"text": "new"})
        assert walk(client, url, did, POST) == truth(network, did, POST)
