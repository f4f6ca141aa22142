"""What it costs to check every record: a page read with all checks, and by the same JSON parser without any.

The product has no switch for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from parity_dagster.atproto.pages import parse_page
from parity_dagster.sample_network import LIKE, POST
from parity_dagster.sample_network.generated import Generated
from parity_dagster.store.copy_text import encode_rows

_DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"


class _Entry(msgspec.Struct, gc=False):
    uri: str
    cid: str
    value: msgspec.Raw


class _Page(msgspec.Struct, gc=False):
    records: list[_Entry]
    cursor: str


def cost_of_checks(repeats: int = 300) -> str:
    """A sentence about pages of 100 posts and of 100 likes.

    The fastest tenth of the repeats counts, so that other work on the machine does not.
    """
    parts = []
    for name, nsid in (("posts", POST), ("likes", LIKE)):
        body = b'{"records":[' + Generated(_DID, nsid, 100).entries(0, 100) + b'],"cursor":"3jzfcijpj2z2a"}'
        decode = msgspec.json.Decoder(_Page).decode
        rows = parse_page(body, _DID, nsid).records
        bare = _fastest(lambda body=body, decode=decode: decode(body), repeats)  # type: ignore[misc]
        checked = _fastest(lambda body=body, nsid=nsid: parse_page(body, _DID, nsid), repeats)  # type: ignore[misc]
        encoded = _fastest(lambda nsid=nsid, rows=rows: encode_rows(_DID, nsid, "3jzf", rows), repeats)  # type: ignore[misc]
        parts.append(
            f"100 {name} ({len(body) / 1000:.0f} kB) take {bare:.2f} ms to parse without looking, {checked:.2f} ms with"
            f" every check, and {encoded:.2f} ms more to encode for COPY"
        )
    return "; ".join(parts)


def _fastest(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1000 * sorted(times)[len(times) // 10]
