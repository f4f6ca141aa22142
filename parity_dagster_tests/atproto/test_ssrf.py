"""What strangers' documents can and cannot make us contact."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given, strategies as st

from parity_dagster.atproto.network import open_network
from parity_dagster.atproto.ssrf import check_address, check_url, parse_endpoint
from parity_dagster.errors import BlockedEndpoint, HostUnreachable
from parity_dagster.settings import load_settings

# {port} is the port of a server on this machine that counts connections: a URL that slips through reaches it.
HOSTILE_ENDPOINTS = [
    # not https
    "http://pds.example.com",
    "http://localhost:{port}",
    "http://127.0.0.1:{port}",
    "ftp://pds.example.com",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_x",
    "data:text/plain,x",
    "javascript:alert(1)",
    "unix:///var/run/docker.sock",
    "//127.0.0.1:{port}",
    "pds.example.com",
    "https:pds.example.com",
    "https:/pds.example.com",
    "https:///pds.example.com",
    "https:\\\\127.0.0.1",
    "",
    "https://",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA",
    # more than an origin
    "https://user@pds.example.com",
    "https://user:pass@127.0.0.1:{port}",
    "https://pds.example.com@127.0.0.1:{port}",
    "https://127.0.0.1:{port}#@pds.example.com",
    "https://127.0.0.1:{port}\\@pds.example.com",
    "https://pds.example.com/xrpc",
    "https://pds.example.com//",
    "https://pds.example.com/../admin",
    "https://pds.example.com?x=1",
    "https://pds.example.com/?x=1",
    "https://pds.example.com#x",
    "https://pds.example.com:80",
    "https://pds.example.com:22",
    "https://pds.example.com:8443",
    "https://pds.example.com:{port}",
    "https://pds.example.com:",
    "https://pds.example.com:443:443",
    "https://pds.example.com:0443",
    "https://pds.example.com:+443",
    # IP addresses in every spelling
    "https://127.0.0.1",
    "https://127.0.0.1:{port}",
    "https://10.0.0.1",
    "https://169.254.169.254",
    "https://169.254.169.254/latest/meta-data/",
    "https://93.184.216.34",
    "https://2130706433",
    "https://0177.0.0.1",
    "https://017700000001",
    "https://0x7f000001",
    "https://0x7f.0.0.1",
    "https://0x7f.1",
    "https://127.1",
    "https://127.0.1",
    "https://0",
    "https://127.0.0.1.",
    "https://127.0.0.0x1",
    "https://[::1]",
    "https://[::1]:{port}",
    "https://[::]",
    "https://[::ffff:127.0.0.1]",
    "https://[::ffff:7f00:1]",
    "https://[fe80::1%25eth0]",
    "https://[fe80::1%eth0]",
    "https://[2606:2800:220:1::1]",
    "https://[v1.x]",
    "https://::1",
    # names
    "https://localhost",
    "https://localhost:{port}",
    "https://localhost.",
    "https://LOCALHOST",
    "https://intranet",
    "https://com",
    "https://x.localhost",
    "https://printer.local",
    "https://pds.test",
    "https://pds.example",
    "https://pds.invalid",
    "https://metadata.google.internal",
    "https://metadata.google.INTERNAL",
    "https://1.0.0.127.in-addr.arpa",
    "https://x.onion",
    "https://x.alt",
    "https://router.lan",
    "https://nas.home",
    "https://mail.corp",
    "https://pds.example.com.",
    "https://.pds.example.com",
    "https://pds..example.com",
    "https://-pds.example.com",
    "https://pds-.example.com",
    "https://pds_x.example.com",
    "https://pds.example.c-",
    "https://*.example.com",
    "https://" + "a" * 64 + ".com",
    "https://" + "a." * 126 + "com",
    "https://" + "a" * 5000 + ".com",
    # characters
    " https://pds.example.com",
    "https://pds.example.com ",
    "https://pds.example.com\n",
    "https://pds.example.com\r\nHost: evil",
    "https://pds.exa\tmple.com",
    "https://pds.example.com\0.evil.com",
    "https://pds.example.com%00",
    "https://%31%32%37.0.0.1",
    "https://127%2e0%2e0%2e1",
    "https://１２７.０.０.１",
    "https://①②⑦.⓪.⓪.①",
    "https://127。0。0。1",
    "https://127．0．0．1",
    "https://ｌｏｃａｌｈｏｓｔ",
    "https://loca\u00adlhost.com",
    "https://pds\u200b.example.com",
    "https://pds.example.com\u2044x",
    "https://bücher.example.com",
    "https://pds.example.\u212aom",
    "https\u017f://pds.example.com",
    "http\u017f://pds.example.com",
    "https://pds.example.com\ud800",
]

PRIVATE_ADDRESSES = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.169.254", "169.254.170.2", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1"),
    *("198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1"),
    *(
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:a9fe:a9fe",
        "::127.0.0.1",
    ),
    *("::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "fc00::1"),
    *("fd00:ec2::254", "fe80::1", "fe80::1%eth0", "2606:4700::1%eth0", "fec0::1", "ff02::1", "ff0e::1"),
    *("2001::1", "2001:0:7f00:1::", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::1"),
    *("2002:c0a8:1::", "3fff::1", "5f00::1", "4000::1", "1.2.3", "127.1", "0x7f.0.0.1", "010.0.0.1", "", "x"),
]

PUBLIC_ADDRESSES = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "126.255.255.255"),
    *(
        "172.15.255.255",
        "172.32.0.1",
        "192.0.1.1",
        "193.0.0.1",
        "198.17.255.255",
        "198.20.0.1",
        "223.255.255.255",
    ),
    *(
        "::ffff:8.8.8.8",
        "2606:4700:4700::1111",
        "2a00:1450:4001:80b::200e",
        "2001:4860:4860::8888",
        "2400:cb00::1",
    ),
]


class CountingServer:
    """A listening socket on loopback that counts connections and answers 200."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if await reader.read(1) == b"G":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
        writer.close()


@asynccontextmanager
async def counting_server() -> AsyncIterator[CountingServer]:
    counter = CountingServer()
    server = await asyncio.start_server(counter.answer, "127.0.0.1", 0)
    counter.port = server.sockets[0].getsockname()[1]
    async with server:
        yield counter


class FixedResolver(AbstractResolver):
    """An attacker's DNS: one set of addresses per look-up (empty: no such name), the last for ever."""

    def __init__(self, *answers: Sequence[str], port: int) -> None:
        self._answers = list(answers)
        self._port = port
        self.lookups = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.lookups += 1
        addresses = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if not addresses:
            raise OSError("no such name")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=self._port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("endpoint", HOSTILE_ENDPOINTS)
def test_a_hostile_endpoint_is_refused_by_name(endpoint: str) -> None:
    with pytest.raises(BlockedEndpoint) as caught:
        parse_endpoint(endpoint.replace("{port}", "4321"), allow_private=False)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_the_tables_are_as_long_as_promised() -> None:
    assert len(set(HOSTILE_ENDPOINTS)) + len(set(PRIVATE_ADDRESSES)) >= 60 * 2


def test_no_hostile_endpoint_costs_a_connection() -> None:
    async def scenario() -> None:
        async with counting_server() as server:
            client = open_network(load_settings(), resolver=FixedResolver(["127.0.0.1"], port=server.port)).xrpc.http
            for endpoint in HOSTILE_ENDPOINTS:
                origin = endpoint.replace("{port}", str(server.port))
                for url in (origin, f"{origin}/xrpc/com.atproto.repo.listRecords"):
                    with pytest.raises(BlockedEndpoint):
                        await client.get(url, max_bytes=100)
            assert server.connections == 0
            await client.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize("address", PRIVATE_ADDRESSES)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(BlockedEndpoint):
        check_address(address)


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_a_public_address_is_accepted(address: str) -> None:
    check_address(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_gains_nothing_from_being_written_as_ipv6(address: object) -> None:
    def refused(text: str) -> bool:
        try:
            check_address(text)
        except BlockedEndpoint:
            return True
        return False

    assert refused(f"::ffff:{address}") == refused(str(address))
    assert refused(f"64:ff9b::{address}")
    assert refused(f"::{address}")


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://pds.example.com", "https://pds.example.com"),
        ("https://pds.example.com/", "https://pds.example.com"),
        ("https://pds.example.com:443", "https://pds.example.com"),
        ("https://pds.example.com:443/", "https://pds.example.com"),
        ("HTTPS://PDS.Example.Com", "https://pds.example.com"),
        ("https://morel.us-east.host.bsky.network", "https://morel.us-east.host.bsky.network"),
        ("https://xn--bcher-kva.example.com", "https://xn--bcher-kva.example.com"),
        ("https://1.2.3.4.nip.io", "https://1.2.3.4.nip.io"),
        ("https://4chan.org", "https://4chan.org"),
        ("https://" + "a." * 125 + "com", "https://" + "a." * 125 + "com"),
    ],
)
def test_a_public_endpoint_is_reduced_to_its_origin(url: str, origin: str) -> None:
    assert parse_endpoint(url, allow_private=False) == origin
    assert parse_endpoint(url, allow_private=True) == origin


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://localhost:2583", "http://localhost:2583"),
        ("http://127.0.0.1:2583/", "http://127.0.0.1:2583"),
        ("https://pds.internal:8443", "https://pds.internal:8443"),
        ("http://[::1]:2583", "http://[::1]:2583"),
        ("http://pds:80/", "http://pds"),
        ("http://pds:443", "http://pds:443"),
    ],
)
def test_private_endpoints_need_the_switch(url: str, origin: str) -> None:
    assert parse_endpoint(url, allow_private=True) == origin
    with pytest.raises(BlockedEndpoint):
        parse_endpoint(url, allow_private=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://user@localhost:1",
        "http://localhost:1/path",
        "http://localhost:1?x",
        "http://localhost:1#x",
        "http://localhost:0",
        "http://localhost:65536",
        "http://local host",
        "http://ｌocalhost",
        "ftp://localhost",
        "http://localhost\n",
        "http://a@b@localhost",
        "http://localhost\\@x",
    ],
)
def test_the_switch_opens_addresses_and_not_the_grammar(url: str) -> None:
    with pytest.raises(BlockedEndpoint):
        parse_endpoint(url, allow_private=True)


@pytest.mark.parametrize("tail", ["/x y", "/x\n", "/x\r\nHost: a", "/é", "\\x", "/\0", "/x\u2028"])
def test_a_request_url_is_printable_ascii(tail: str) -> None:
    assert check_url("https://pds.example.com/xrpc/a?b=%41#c", allow_private=False) == "pds.example.com"
    with pytest.raises(BlockedEndpoint):
        check_url(f"https://pds.example.com{tail}", allow_private=False)


@given(st.text())
def test_no_text_passes_but_an_https_origin(text: str) -> None:
    for url in (text, f"https://{text}", f"https://pds.example.com{text}"):
        try:
            origin = parse_endpoint(url, allow_private=False)
        except BlockedEndpoint:
            continue
        assert origin.startswith("https://")
        assert set(origin[8:]) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["127.0.0.1", "::1"],
        ["127.0.0.1", "127.0.0.2", "10.0.0.1"],
        ["::ffff:127.0.0.1"],
        ["127.1"],
    ],
)
def test_a_public_name_with_private_addresses_is_refused_before_a_byte_is_sent(addresses: list[str]) -> None:
    async def scenario() -> None:
        async with counting_server() as server:
            client = open_network(load_settings(), resolver=FixedResolver(addresses, port=server.port)).xrpc.http
            with pytest.raises(BlockedEndpoint, match=r"^pds\.example\.com: .* is not"):
                await client.get("https://pds.example.com/xrpc/x", max_bytes=100)
            await client.aclose()
            assert server.connections == 0

    asyncio.run(scenario())


def test_the_same_name_is_contacted_when_private_hosts_are_allowed() -> None:
    # the proof that the server of the tests above can be reached the way they try to
    async def scenario() -> None:
        async with counting_server() as server:
            settings = load_settings(allow_private_hosts=True)
            client = open_network(settings, resolver=FixedResolver(["127.0.0.1"], port=server.port)).xrpc.http
            answer = await client.get("http://pds.example.com/xrpc/x", max_bytes=100)
            with pytest.raises(HostUnreachable):  # TLS with a server that speaks none
                await client.get("https://pds.example.com/xrpc/x", max_bytes=100)
            await client.aclose()
            assert (answer.status, answer.body) == (200, b"{}")
            assert server.connections >= 2

    asyncio.run(scenario())


def test_the_address_checked_is_the_one_connected_to() -> None:
    # An attacker's DNS changes its answer from one look-up to the next (rebinding). There is one look-up
    # for each connection, and what it brings is what is checked: nothing is left over from an earlier one.
    async def scenario() -> None:
        async with counting_server() as server:
            resolver = FixedResolver([], ["127.0.0.1"], port=server.port)
            client = open_network(load_settings(), resolver=resolver).xrpc.http
            with pytest.raises(HostUnreachable):
                await client.get("https://pds.example.com/", max_bytes=100)
            assert resolver.lookups == 1
            for _ in range(3):  # the first asks DNS, the others get the answer from the cache
                with pytest.raises(BlockedEndpoint):
                    await client.get("https://pds.example.com/", max_bytes=100)
            assert resolver.lookups == 2
            await client.aclose()
            assert server.connections == 0

    asyncio.run(scenario())


def test_proxy_variables_do_not_lead_around_the_address_check(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with counting_server() as server:
            for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{server.port}")
                monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{server.port}")
            client = open_network(load_settings(), resolver=FixedResolver(["10.0.0.1"], port=server.port)).xrpc.http
            with pytest.raises(BlockedEndpoint):
                await client.get("https://pds.example.com/", max_bytes=100)
            await client.aclose()
            assert server.connections == 0

    asyncio.run(scenario())


def test_proxy_variables_do_not_lead_anywhere_else_either(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with counting_server() as server, counting_server() as proxy:
            for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            settings = load_settings(allow_private_hosts=True)
            client = open_network(settings, resolver=FixedResolver(["127.0.0.1"], port=server.port)).xrpc.http
            assert (await client.get("http://pds.example.com/", max_bytes=100)).status == 200
            await client.aclose()
            assert (server.connections, proxy.connections) == (1, 0)

    asyncio.run(scenario())


def test_allowing_private_hosts_is_loud_and_off_by_default(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        open_network(load_settings())
        assert not caplog.records
        open_network(load_settings(allow_private_hosts=True))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "PARITY_ALLOW_PRIVATE_HOSTS" in caplog.text
