"""What the sample network was asked: every request with its answer's status, and counters over all of them."""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple


class LoggedRequest(NamedTuple):
    """One request as it was answered.

    Attributes:
        host: name of the host asked (`plc` for the directory).
        method: NSID of the XRPC method, `did` for a DID document, otherwise the path.
        did: the `repo`, `did` or `actor` parameter, or "".
        collection: the `collection` parameter, or "".
        cursor: the `cursor` parameter, or `after` of the directory's export, or None.
        limit: the `limit` parameter as it was sent, or "".
        status: HTTP status of the answer; 0 when the connection was cut before one, or never answered.
        at: monotonic seconds (`time.monotonic`) at which the answer was decided.
    """

    host: str
    method: str
    did: str
    collection: str
    cursor: str | None
    limit: str
    status: int
    at: float


class RequestLog:
    """The last requests in order, and counters that are never cut off."""

    def __init__(self, keep: int = 100_000) -> None:
        self._entries: deque[LoggedRequest] = deque(maxlen=keep)
        self._counts: Counter[tuple[str, str, int]] = Counter()

    def add(self, request: LoggedRequest) -> None:
        """Remember a request."""
        self._entries.append(request)
        self._counts[request.host, request.method, request.status] += 1

    def entries(
        self,
        *,
        host: str | None = None,
        method: str | None = None,
        did: str | None = None,
        collection: str | None = None,
        status: int | None = None,
    ) -> list[LoggedRequest]:
        """Return remembered requests, oldest first; a method is `listRecords` or the whole NSID."""
        return [
            entry
            for entry in self._entries.copy()
            if (host is None or entry.host == host)
            and (method is None or entry.method == method or entry.method.endswith("." + method))
            and (did is None or entry.did == did)
            and (collection is None or entry.collection == collection)
            and (status is None or entry.status == status)
        ]

    def cursors(self, did: str, collection: str, *, status: int = 200) -> list[str | None]:
        """Return the cursors with which answered pages of a pair were asked, in order; None is the first page."""
        found = self.entries(method="listRecords", did=did, collection=collection, status=status)
        return [entry.cursor for entry in found]

    def count(self, *, host: str | None = None, method: str | None = None, status: int | None = None) -> int:
        """Count requests, forgotten ones included; a method is `listRecords` or the whole NSID."""
        return sum(
            number
            for (a_host, a_method, a_status), number in self._counts.copy().items()
            if (host is None or a_host == host)
            and (method is None or a_method == method or a_method.endswith("." + method))
            and (status is None or a_status == status)
        )

    def counts(self) -> Counter[tuple[str, str, int]]:
        """Return how many requests there were of each (host, method, status), forgotten ones included."""
        return self._counts.copy()

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._counts.clear()
