"""How many pages per second the sample network can serve, asked in the cheapest way there is.

A raw client pipelines requests on plain sockets and only counts status lines, so that nearly all of the time is the
server's.
"""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

CONNECTIONS = 4
PIPELINED = 50
_STATUS = b"HTTP/1.1 200 "


def pages_per_second(pairs: list[tuple[str, str, str]], pages: int = 4000) -> float:
    """Ask for first pages of 100 records, over and over: (DID, collection, origin) in turn."""
    requests = []
    for did, nsid, pds in pairs:
        url = urlsplit(pds)
        path = f"/xrpc/com.atproto.repo.listRecords?repo={did}&collection={nsid}&limit=100"
        requests.append(f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
    url = urlsplit(pairs[0][2])
    requests = [request for request, pair in zip(requests, pairs, strict=True) if pair[2] == pairs[0][2]]
    each = pages // CONNECTIONS // PIPELINED

    def ask(number: int) -> None:
        buffer = bytearray(2**20)
        view = memoryview(buffer)
        with socket.create_connection((url.hostname or "127.0.0.1", url.port or 80), timeout=60) as link:
            for round_ in range(each):
                start = (number * each + round_) * PIPELINED
                link.sendall(b"".join(requests[(start + i) % len(requests)] for i in range(PIPELINED)))
                answers, tail = 0, b""
                while answers < PIPELINED:
                    got = link.recv_into(view)
                    if not got:
                        raise ConnectionError("the sample network closed a connection")
                    seen = tail + bytes(view[:got])
                    answers += seen.count(_STATUS)
                    tail = seen[-len(_STATUS) + 1 :]
                # The rest of the last body is read with the next answers: bodies hold no status line.

    began = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(ask, range(CONNECTIONS)))
    return CONNECTIONS * each * PIPELINED / (time.perf_counter() - began)
