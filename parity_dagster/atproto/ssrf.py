"""What may be contacted: the policy that keeps strangers' DID documents from steering requests inwards.

 Anyone can publish a DID document whose service endpoint is `http://169.254.169.254/`; the rules
follow the did, handle and XRPC specs ("only HTTPS"), indigo's `ssrf` package and the IANA special-purpose
address registries (RFC 6890).
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from parity_dagster.errors import BlockedEndpoint
from parity_dagster.identifiers import RESERVED_TLDS

# Names used inside networks; ICANN has set corp and home aside because of it.
_INTERNAL_TLDS = RESERVED_TLDS | {"corp", "home", "intranet", "lan", "localdomain"}

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# A last label that starts with a letter leaves no room for an IPv4 address in any spelling: decimal, octal,
# hex (0x7f.1) and short forms (127.1) all end in a label that starts with a digit.
_PUBLIC_URL = re.compile(rf"https://((?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?)(?::443)?/?", re.A)
_PRIVATE_URL = re.compile(rf"(https?)://((?:{_LABEL}\.)*{_LABEL}|\[[0-9a-f:.]{{2,45}}\])(?::([0-9]{{1,5}}))?/?", re.A)
_URL_PARTS = re.compile(r"([A-Za-z]+://[^/?#\\]*)(?:[/?][!-~]*)?")

_BLOCKED_V4 = tuple(
    ip_network(net)
    for net in (
        "0.0.0.0/8",  # this network
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # private
        "100.64.0.0/10",  # carrier-grade NAT, cloud metadata of some providers
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a public address that is the host's own service on Azure
        "169.254.0.0/16",  # link-local, cloud metadata
        "192.0.0.0/24",  # IETF protocol assignments
        "192.88.99.0/24",  # 6to4 relay anycast
        "198.18.0.0/15",  # benchmarking
        *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Everything outside 2000::/3 is blocked: loopback, unique local, link-local, multicast, v4-compatible and
# NAT64 (64:ff9b::/96), which would reach any IPv4 address behind the translator.
_GLOBAL_V6 = ip_network("2000::/3")
_BLOCKED_V6 = tuple(
    ip_network(net)
    for net in (
        "2001::/23",  # IETF protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries an IPv4 address
        "3fff::/20",  # documentation
    )
)


def _blocked(what: str, reason: str) -> BlockedEndpoint:
    return BlockedEndpoint(f"{what[:120]!a} is not contacted: {reason}")


def parse_endpoint(url: str, *, allow_private: bool) -> str:
    """Check a service endpoint and reduce it to its origin.

    Args:
        url: the endpoint as a DID document or a setting has it; one trailing slash is tolerated.
        allow_private: `PARITY_ALLOW_PRIVATE_HOSTS`: http, ports, IP addresses and internal names too.

    Returns:
        The origin in lower case: `https://host`, with scheme http or a port only when `allow_private`.

    Raises:
        BlockedEndpoint: anything else than https, a public-looking host name, and port 443.
    """
    # str.lower() turns U+212A and U+0130 into ASCII letters, so nothing but ASCII gets that far
    if not url.isascii():
        raise _blocked(url, "it has non-ASCII characters; an international name is written as xn--…")
    text = url.lower()
    if len(text) > 8 + 253 + 5:
        raise _blocked(url, "it is longer than any host name")
    if allow_private:
        private = _PRIVATE_URL.fullmatch(text)
        if not private or not 0 < int(private[3] or 443) < 65536:
            raise _blocked(url, "an endpoint is http(s)://host[:port] with no user, path, query or fragment")
        return text.removesuffix("/").removesuffix(":443" if private[1] == "https" else ":80")
    public = _PUBLIC_URL.fullmatch(text)
    if not public:
        raise _blocked(
            url,
            "an endpoint is https://host.name with no user, port, path, query or fragment, and no IP address",
        )
    host = public[1]
    if len(host) > 253:
        raise _blocked(url, "its host name is longer than 253 characters")
    if host.rpartition(".")[2] in _INTERNAL_TLDS:
        raise _blocked(url, "no public server has a name under that top-level name")
    return f"https://{host}"


@lru_cache(maxsize=4096)
def _check_origin(origin: str, allow_private: bool) -> str:
    return parse_endpoint(origin, allow_private=allow_private).partition("://")[2]


def check_url(url: str, *, allow_private: bool) -> str:
    """Check the URL of one request: its origin by `parse_endpoint`, the rest for printable ASCII.

    Args:
        allow_private: as in `parse_endpoint`.

    Returns:
        The host, with its port if it has one, for error messages.

    Raises:
        BlockedEndpoint: the origin must not be contacted, or the URL could be read in two ways.
    """
    parts = _URL_PARTS.fullmatch(url)
    if not parts:
        raise _blocked(url, "it is not a plain absolute URL")
    return _check_origin(parts[1], allow_private)


def check_address(ip: str) -> None:
    """Check the address of a connection that is about to be made.

    Args:
        ip: IPv4 or IPv6 address as text, as the resolver gave it.

    Raises:
        BlockedEndpoint: the address is not a public unicast address, or not an address at all.
    """
    try:
        address: IPv4Address | IPv6Address = ip_address(ip)
    except ValueError:
        raise _blocked(ip, "it is not an IP address") from None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise _blocked(ip, "it has a zone, so it is no public address")
        address = address.ipv4_mapped or address
    if isinstance(address, IPv4Address):
        public = not any(address in net for net in _BLOCKED_V4)
    else:
        public = address in _GLOBAL_V6 and not any(address in net for net in _BLOCKED_V6)
    if not public:
        raise _blocked(ip, "it is not a public address")
