"""The sample network's repositories are real ones: true CIDs, canonical trees, commits that are signed."""

from __future__ import annotations

import json
import tempfile
from typing import Any

import httpx
import pytest

from parity_dagster.atproto.archive import Proof, RepositoryArchive, check_cid, signing_key
from parity_dagster.atproto.pages import FailedEntry
from parity_dagster.sample_network import (
    FOLLOW,
    LIKE,
    ODD_KINDS,
    POST,
    PROFILE,
    REPOST,
    Fault,
    Running,
    SampleNetwork,
)
from parity_dagster.sample_network.accounts import make_did
from parity_dagster.sample_network.blocks import make_cid, to_block
from parity_dagster.sample_network.generated import Generated
from parity_dagster.sample_network.paging import KeptPages
from parity_dagster.sample_network.wrong_archives import WRONG_ARCHIVES, Repository
from parity_dagster_tests.atproto.archives import WRONG_CASES


@pytest.mark.parametrize("nsid", [POST, LIKE, REPOST, FOLLOW, PROFILE, "com.example.review"])
def test_generated_records_have_the_cids_of_their_blocks(nsid: str) -> None:
    generated = Generated(make_did(1, 4), nsid, 905)
    records, blocks = generated.records(), dict(generated.blocks())
    assert list(blocks) == sorted(records)
    for rkey, (cid, value) in records.items():
        assert blocks[rkey] == to_block(json.loads(value))
        assert make_cid(blocks[rkey]) == cid
        assert check_cid(value, cid) == "equal"


# what DAG-CBOR cannot hold, and text that is none
_WITHOUT_A_BLOCK = {
    *("giant-int", "huge-exponent", "exploding-numbers", "very-deep"),
    *("invalid-utf8", "encoded-surrogate", "lone-surrogate"),
}


@pytest.mark.parametrize("kind", sorted(set(ODD_KINDS) - {"missing-cid"}))
def test_odd_records_have_the_cids_of_their_blocks_where_they_have_any(kind: str) -> None:
    network = SampleNetwork()
    did = network.add_account()
    (rkey,) = network.add_odd(did, POST, [kind])
    cid, value = network.records(did, POST)[rkey]
    assert cid is not None
    assert check_cid(value, cid) == ("unverifiable" if kind in _WITHOUT_A_BLOCK else "equal")


Read = dict[str, dict[str, tuple[Any, bytes] | FailedEntry]]


def get_repo(served: Running, client: httpx.Client, did: str) -> httpx.Response:
    return client.get(_address(served, did))


def _address(served: Running, did: str) -> str:
    return f"{served.network.accounts[did].host.url}/xrpc/com.atproto.sync.getRepo?did={did}"


def verify(served: Running, client: httpx.Client, did: str, car: bytes) -> tuple[Proof, Read]:
    """Verify an archive with the key in the DID document and read it: collection → rkey → (cid, value)."""
    key = signing_key(client.get(f"{served.plc_url}/{did}").content, did)
    nsids = served.network.accounts[did].repo.nsids()
    found: Read = {nsid: {} for nsid in nsids}
    with tempfile.TemporaryFile() as file:
        file.write(car)
        file.flush()
        archive = RepositoryArchive(file)
        proof = archive.verify(did=did, key=key)
        for nsid in nsids:
            for record in archive.records(nsid):
                found[nsid][record[0] or ""] = record if isinstance(record, FailedEntry) else record[1:]
    return proof, found


def test_an_archive_holds_the_records_that_lists_show(
    network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    dids = [network.add_account({POST: 345, LIKE: 100, FOLLOW: 1, PROFILE: 1}) for _ in range(4)]
    network.delete_record(dids[0], POST, sorted(network.records(dids[0], POST))[7])
    network.update_record(dids[0], POST, {"text": "changed"}, rkey=sorted(network.records(dids[0], POST))[9])
    network.put_record(dids[0], POST, {"text": "first"}, rkey="2")
    curves = set()
    for did in dids:
        answer = get_repo(served, client, did)
        assert answer.headers["content-type"] == "application/vnd.ipld.car"
        proof, found = verify(served, client, did, answer.content)
        assert (proof.rev, proof.surplus_blocks) == (network.rev(did), 0)
        assert proof.counts == {nsid: count for (other, nsid), count in network.counts().items() if other == did}
        for nsid, records in found.items():
            truth = network.records(did, nsid)
            assert list(records) == sorted(truth)
            for rkey, record in records.items():
                assert not isinstance(record, FailedEntry)
                assert (record[0], json.loads(record[1])) == (truth[rkey][0], json.loads(truth[rkey][1]))
        curves.add(network.accounts[did].key.multibase[:4])
    assert curves == {"zQ3s", "zDna"}  # secp256k1 and P-256


def test_odd_records_are_in_the_archive_as_they_are_in_the_repository(
    network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    did = network.add_account({POST: 3})
    odd = network.add_odd(did, POST)
    _, found = verify(served, client, did, get_repo(served, client, did).content)
    failed = {odd[rkey] for rkey, record in found[POST].items() if isinstance(record, FailedEntry)}
    # what no record key may look like is in no repository
    assert {odd[rkey] for rkey in set(odd) - set(found[POST])} == {"bad-rkey"}
    assert failed == {
        *("nul", "nul-field-name", "lone-surrogate", "invalid-utf8", "encoded-surrogate"),
        *("value-string", "value-number", "value-array", "value-null"),
        *("giant-int", "huge-exponent", "exploding-numbers", "very-deep"),
    }


@pytest.mark.parametrize("name", WRONG_CASES)
def test_every_wrong_archive_is_served(
    name: str, network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    did = network.add_account({POST: 40})
    right = get_repo(served, client, did).content
    network.behave(did=did, archive=name)
    account = network.accounts[did]
    wanted = WRONG_ARCHIVES[name](Repository(did, account.repo.rev, dict(account.repo.blocks()), account.key))
    answer = get_repo(served, client, did)
    assert (answer.status_code, answer.content) == (200, wanted)
    assert answer.content != right
    network.behave_normally()
    assert get_repo(served, client, did).content == right


def test_a_way_to_be_wrong_that_does_not_exist_is_refused(network: SampleNetwork) -> None:
    with pytest.raises(ValueError, match="no archive is 'rotten'"):
        network.behave(archive="rotten")


def test_too_few_records_to_be_wrong_are_an_error(
    network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    did = network.add_account({POST: 1})
    network.behave(archive="unsorted")
    answer = get_repo(served, client, did)
    assert (answer.status_code, answer.json()["message"]) == (500, "too few records for a node of two")


def test_an_account_that_changes_its_key_signs_with_the_new_one(
    network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    did = network.add_account({POST: 5})
    before, key = get_repo(served, client, did).content, network.accounts[did].key
    network.rotate_key(did)
    after = get_repo(served, client, did).content
    assert network.accounts[did].key.multibase != key.multibase
    assert before != after
    verify(served, client, did, after)


@pytest.mark.long
def test_big_archives_are_streamed(network: SampleNetwork, served: Running, client: httpx.Client) -> None:
    did = network.add_account({POST: 20_001})
    with client.stream("GET", _address(served, did)) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        car = answer.read()
    proof, _ = verify(served, client, did, car)
    assert proof.counts == {POST: 20_001}
    # the connection serves the next request
    assert get_repo(served, client, did).content == car


def test_an_archive_goes_on_as_long_as_it_is_told_to(
    network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    did = network.add_account({POST: 40}, host="pds-1")
    right = get_repo(served, client, did).content
    network.behave(did=did, archive_surplus=3 * 2**20)
    gigantic = get_repo(served, client, did).content
    assert gigantic.startswith(right)
    assert len(gigantic) > len(right) + 3 * 2**20
    assert verify(served, client, did, gigantic)[0].surplus_blocks == 1
    network.behave(did=did, archive_surplus=-1)
    other = network.add_account({POST: 1}, host="pds-1")
    with client.stream("GET", _address(served, did)) as answer:
        # a client that stops reading holds nobody up
        assert get_repo(served, client, other).status_code == 200
        size = 0
        for piece in answer.iter_raw():
            size += len(piece)
            if size > 20 * 2**20:
                break


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (Fault(kind="501", method="getRepo"), lambda answer, right: answer.status_code == 501),
        (Fault(kind="404", method="getRepo"), lambda answer, right: answer.status_code == 404),
        (Fault(kind="drip", method="getRepo", seconds=0.2), lambda answer, right: answer.content == right),
        (Fault(kind="truncated-json", method="getRepo", size=99), lambda answer, right: answer.content == right[:99]),
    ],
    ids=["501", "404", "drip", "truncated"],
)
def test_faults_befall_archives_too(
    fault: Fault, check: Any, network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    did = network.add_account({POST: 40})
    right = get_repo(served, client, did).content
    network.behave(faults=(fault,))
    assert check(get_repo(served, client, did), right)


@pytest.mark.parametrize("archive_surplus", [0, -1])
def test_a_transfer_is_cut(archive_surplus: int, network: SampleNetwork, served: Running, client: httpx.Client) -> None:
    did = network.add_account({POST: 40})
    network.behave(archive_surplus=archive_surplus, faults=(Fault(kind="cut", method="getRepo", size=500),))
    with pytest.raises(httpx.RemoteProtocolError):
        get_repo(served, client, did)


def test_who_has_no_archive(network: SampleNetwork, served: Running, client: httpx.Client) -> None:
    did = network.add_account({POST: 5})
    network.set_status(did, "takendown")
    assert get_repo(served, client, did).json()["error"] == "RepoTakendown"
    network.set_status(did, "active")
    network.behave(sync_methods=False)
    assert get_repo(served, client, did).status_code == 501
    network.behave_normally()
    network.drop_repo(did)
    assert get_repo(served, client, did).json()["error"] == "RepoNotFound"
    url = served.pds_urls["pds-1"]
    assert client.get(f"{url}/xrpc/com.atproto.sync.getRepo").json()["error"] == "InvalidRequest"


def test_archives_have_a_rate_limit_of_their_own(network: SampleNetwork, served: Running, client: httpx.Client) -> None:
    did = network.add_account({POST: 5}, host="pds-1")
    network.behave(host="pds-1", rate_limit=2, repo_rate_limit=3)
    answers = [get_repo(served, client, did) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["ratelimit-limit"] == "3"
    url = f"{served.pds_urls['pds-1']}/xrpc/com.atproto.sync.getLatestCommit?did={did}"
    answers = [client.get(url) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["ratelimit-limit"] == "2"


def test_archives_are_kept_by_revision(network: SampleNetwork, served: Running, client: httpx.Client) -> None:
    network.kept_pages = KeptPages(10**6)
    did = network.add_account({POST: 5})
    first = get_repo(served, client, did).content
    assert get_repo(served, client, did).content == first
    network.put_record(did, POST, {"text": "more"})
    assert verify(served, client, did, get_repo(served, client, did).content)[0].counts == {POST: 6}


def test_another_process_makes_archives_wrong_and_changes_keys(
    network: SampleNetwork, served: Running, client: httpx.Client
) -> None:
    did = network.add_account({POST: 40})
    right, key = get_repo(served, client, did).content, network.accounts[did].key
    assert client.post(f"{served.control_url}/control/behave", json={"archive": "forged"}).is_success
    assert get_repo(served, client, did).content != right
    assert client.post(f"{served.control_url}/control/rotate_key", json={"did": did}).is_success
    assert network.accounts[did].key is not key
    refused = client.post(f"{served.control_url}/control/behave", json={"archive": "rotten"})
    assert refused.status_code == 400
