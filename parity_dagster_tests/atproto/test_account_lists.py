"""Lists of accounts are read to what they name, whatever else a server puts into them, and no further than bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from parity_dagster.atproto.account_lists import MAX_ENTRIES, AccountList, AccountPage, ListedAccount, parse_page
from parity_dagster.atproto.network import open_network
from parity_dagster.errors import (
    BlockedEndpoint,
    HostUnreachable,
    ListUnavailable,
    MalformedAnswer,
    RateLimited,
    RequestRefused,
    ServerFailure,
)
from parity_dagster.sample_network import POST, Fault, Running
from parity_dagster.settings import load_settings

DID = "did:plc:z72i7hdynmk6r22z27h6tvur"
OTHER = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"


def read(
    server: str, collection: str | None = POST, *, pages: int = 1, longest_wait: float = 900, **query: Any
) -> list[AccountPage]:
    """Read some pages of a list; up to its end if it has fewer."""

    async def work() -> list[AccountPage]:
        network = open_network(load_settings(allow_private_hosts=True), longest_wait=longest_wait)
        try:
            found = [await network.lists.page(AccountList(server, collection), None, **query)]
            while found[-1].cursor is not None and len(found) < pages:
                found.append(await network.lists.page(AccountList(server, collection), found[-1].cursor, **query))
            return found
        finally:
            await network.aclose()

    return asyncio.run(work())


def dids(pages: list[AccountPage]) -> list[str]:
    return [account.did for page in pages for account in page.accounts]


def limits(network: Running) -> list[str]:
    return [entry.limit for entry in network.network.log.entries(host="relay")]


def test_a_list_is_read_in_the_largest_pages_there_are(network: Running) -> None:
    listed = [network.network.add_account({POST: 1}) for _ in range(5)]
    assert dids(read(network.relay_url, pages=9)) == listed
    assert dids(read(network.relay_url, pages=9, most=2)) == listed
    assert limits(network) == ["2000", "2", "2", "2"]


@pytest.mark.parametrize("answer", ["refuse", "fail", "plain"])
def test_a_server_that_takes_less_gets_smaller_pages(network: Running, answer: str) -> None:
    listed = [network.network.add_account({POST: 1}) for _ in range(5)]
    network.network.behave(host="relay", account_limit=500, over_limit=answer, page_cap=3)
    assert dids(read(network.relay_url, pages=9)) == listed
    asked = limits(network)
    assert asked[-2:] == ["500", "500"]
    assert set(asked[:-2]) == {"2000", "1000"}


def test_accounts_of_a_server_come_with_revision_and_status(network: Running) -> None:
    first, second = (network.network.add_account({POST: 1}) for _ in range(2))
    network.network.set_status(second, "takendown")
    (page,) = read(network.pds_urls["pds-1"], None)
    assert page.accounts == [
        ListedAccount(first, network.network.rev(first)),
        ListedAccount(second, network.network.rev(second), "takendown"),
    ]
    for lie in ("no-rev", "bad-rev", "future-rev"):
        network.network.behave(host="pds-1", account_lies=(lie,))
        assert [account.rev for page in read(network.pds_urls["pds-1"], None) for account in page.accounts] == [
            None
        ] * 2


def test_a_page_that_shows_two_revisions_of_an_account_shows_none(network: Running) -> None:
    first, second = (network.network.add_account({POST: 1}) for _ in range(2))
    network.network.behave(host="pds-1", account_lies=("two-revs",))
    (page,) = read(network.pds_urls["pds-1"], None)
    assert page.accounts == [ListedAccount(first, None), ListedAccount(second, network.network.rev(second))]
    assert page.repeated == 1


def test_what_names_no_account_is_counted(network: Running) -> None:
    listed = [network.network.add_account({POST: 1}) for _ in range(3)]
    network.network.behave(host="relay", account_lies=("invalid", "repeated"))
    (page,) = read(network.relay_url)
    assert dids([page]) == listed
    assert (page.repeated, page.invalid) == (2, 17)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"repos":{}}',
        b'{"repos":[],"cursor":7}',
        b'{"repos":[{"did":"%b"}' % DID.encode(),
        b'{"repos":[],"cursor":"a\\u0000b"}',
        b'{"repos":[],"cursor":"%b"}' % (b"x" * 9000),
        b'{"repos":[%b]}' % b",".join([b"{}"] * (MAX_ENTRIES + 1)),
        b'{"repos":[%b]}' % b",".join([b'{"did":"%b"}' % DID.encode()] * (MAX_ENTRIES + 1)),
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_anything_else_is_no_list(body: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        parse_page(body, allow_private=False)


def test_one_odd_entry_costs_only_itself() -> None:
    odd = b'{"did":"\\ud800"},{"did":"%b","rev":7,"active":"yes"},{"did":["%b"]},null' % (OTHER.encode(), DID.encode())
    page = parse_page(b'{"cursor":"","repos":[{"did":"%b"},%b]}' % (DID.encode(), odd), allow_private=False)
    assert page.accounts == [ListedAccount(DID), ListedAccount(OTHER)]
    assert (page.invalid, page.cursor) == (3, None)


@pytest.mark.parametrize(
    ("row", "status"),
    [
        ("", "active"),
        (',"active":true', "active"),
        (',"active":true,"status":"deactivated"', "active"),
        (',"active":false', "inactive"),
        (',"active":false,"status":"Suspended"', "suspended"),
        (',"status":"deleted"', "deleted"),
        (',"active":false,"status":"%s"' % ("x" * 99), "x" * 39 + "…"),
    ],
)
def test_an_account_is_active_unless_its_server_says_otherwise(row: str, status: str) -> None:
    (account,) = parse_page(b'{"repos":[{"did":"%b"%b}]}' % (DID.encode(), row.encode()), allow_private=False).accounts
    assert account.status == status


def test_a_server_without_the_method_is_told_apart_from_one_that_refuses(network: Running) -> None:
    network.network.add_account({POST: 1})
    with pytest.raises(ListUnavailable, match="name a relay"):
        read(network.pds_urls["pds-1"])
    with pytest.raises(ListUnavailable, match=r"does not know com\.atproto\.sync\.listReposByCollection"):
        read(network.plc_url)
    network.network.behave(host="pds-1", sync_methods=False)
    with pytest.raises(ListUnavailable, match="name the server of some accounts"):
        read(network.pds_urls["pds-1"], None)
    network.network.behave(host="relay", faults=(Fault(kind="404", name="XRPCNotSupported"),))
    with pytest.raises(ListUnavailable):
        read(network.relay_url)
    network.network.behave(host="relay", faults=(Fault(kind="400", message="no"),))
    with pytest.raises(RequestRefused, match="refuses to list"):
        read(network.relay_url)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(kind="503"), ServerFailure),
        (Fault(kind="reset"), HostUnreachable),
        (Fault(kind="cut"), HostUnreachable),
        (Fault(kind="html"), MalformedAnswer),
        (Fault(kind="truncated-json"), MalformedAnswer),
        (Fault(kind="bad-utf8"), MalformedAnswer),
        (Fault(kind="padded", size=3 * 2**20), MalformedAnswer),
        (Fault(kind="gzip-bomb", size=2**23), MalformedAnswer),
        (Fault(kind="redirect"), MalformedAnswer),
        (Fault(kind="429", seconds=3600), RateLimited),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_a_failure_is_an_error_of_ours(network: Running, fault: Fault, error: type[Exception]) -> None:
    network.network.add_account({POST: 1})
    network.network.behave(host="relay", faults=(fault,))
    with pytest.raises(error):
        read(network.relay_url)


def test_what_passes_is_waited_for(network: Running) -> None:
    did = network.network.add_account({POST: 1})
    faults = (Fault(kind="429", seconds=1, times=1), Fault(kind="502", times=1), Fault(kind="reset", times=1))
    network.network.behave(host="relay", faults=faults)
    assert dids(read(network.relay_url)) == [did]


def test_an_internal_address_is_not_asked() -> None:
    async def work() -> None:
        network = open_network(load_settings(allow_private_hosts=False))
        try:
            await network.lists.page(AccountList("http://127.0.0.1:1", POST), None)
        finally:
            await network.aclose()

    with pytest.raises(BlockedEndpoint):
        asyncio.run(work())
