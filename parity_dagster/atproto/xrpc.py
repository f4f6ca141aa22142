"""GET with retries: a host's own limits are kept, and what it refuses is told apart from what went wrong."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from parity_dagster.atproto.bounds import TooSlow
from parity_dagster.atproto.ratelimit import FairSemaphore, HostLimiters, retry_after
from parity_dagster.errors import HostUnreachable, MalformedAnswer, RateLimited, ServerFailure
from parity_dagster.text import one_line

if TYPE_CHECKING:
    from parity_dagster.atproto.http import HttpClient, HttpResponse

TRIES = 3
"""Requests made for one question before the failure is the caller's: connection failures and 5xx."""
BACKOFF = 0.25
"""Seconds before the second try; doubled for each further one."""


class XrpcError(Exception):
    """The server understood the question and says no.

    Attributes:
        status: HTTP status, 400 to 499.
        name: the XRPC error name, e.g. `InvalidRequest`; empty if the body is not XRPC's.
        text: the message for people, capped and without control characters.
    """

    def __init__(self, status: int, name: str, text: str) -> None:
        super().__init__(f"{status} {name}: {text}".strip())
        self.status = status
        self.name = name
        self.text = text


class _ErrorBody(msgspec.Struct):
    error: str = ""
    message: str = ""


class XrpcClient:
    """Asks any host, each at its own pace, and no more than so many at once over all of them.

    Args:
        open_http: makes the client when the first question is asked.
    """

    def __init__(self, open_http: Callable[[], HttpClient], limiters: HostLimiters, concurrency: int = 64) -> None:
        self._open_http = open_http
        self._http: HttpClient | None = None
        self.limiters = limiters
        # Taken for the request alone: who waits for his host's rate limit must not keep others from theirs.
        self._in_flight = FairSemaphore(concurrency)
        # A download may hold its place for minutes, so they have but a part of the places: pages always get through.
        # It may be kept until what came was used: files that wait for that would fill the disk.
        self._downloads = FairSemaphore(max(1, concurrency // 4))

    @property
    def http(self) -> HttpClient:
        """What sends the requests."""
        if self._http is None:
            self._http = self._open_http()
        return self._http

    async def aclose(self) -> None:
        """Close every connection."""
        if self._http is not None:
            await self._http.aclose()

    async def get(
        self,
        origin: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        max_bytes: int = 2**20,
        tries: int = TRIES,
        file: BinaryIO | None = None,
        keep: AsyncExitStack | None = None,
        bucket: str = "",
        longest_wait: float | None = None,
    ) -> HttpResponse:
        """GET a path of a host.

        Args:
            path: begins with a slash, e.g. `/xrpc/com.atproto.repo.listRecords`.
            tries: requests made before a failure counts.
            file: where the body goes instead of into memory, as `HttpClient.download` says; each try starts it anew.
            keep: keeps the place of a download that succeeded until it is closed, so that not more comes than is used.
            bucket: as in `HostLimiters.of`.
            longest_wait: seconds to wait for the host's rate limit, if not as long as an import does.

        Returns:
            An answer whose status is 2xx.

        Raises:
            XrpcError: 4xx; what it means depends on the question.
            TransientError: no answer, 5xx, too big, or a 429 that lasts longer than an import waits.
            TooSlow: what is to go to a file comes too slowly, and would the next time.
            FileFailed: the file does not take it.
            BlockedEndpoint: the host must not be contacted.
        """
        longest = self.limiters.longest_wait if longest_wait is None else longest_wait
        attempt = 0
        limited_since: float | None = None
        while True:
            limiter = self.limiters.of(origin, bucket)  # the one of before may be forgotten between two tries
            async with limiter.slot(longest):
                try:
                    if file is None:
                        async with self._in_flight.place(origin):
                            answer = await self.http.get(origin + path, params, max_bytes=max_bytes)
                    else:
                        async with AsyncExitStack() as place:
                            await place.enter_async_context(self._downloads.place(origin))
                            async with self._in_flight.place(origin):
                                answer = await self.http.download(origin + path, params, file=file, max_bytes=max_bytes)
                            if keep is not None and answer.status < 300:
                                await keep.enter_async_context(place.pop_all())
                except TooSlow:
                    limiter.slow()
                    raise
                except HostUnreachable as exc:
                    limiter.failed()
                    failure: HostUnreachable | ServerFailure = exc
                else:
                    limiter.answered(answer.status, answer.headers)
                    if answer.status < 300:
                        return answer
                    if answer.status == 429:
                        # Not a failed try: the limiter makes the next one wait, or gives up.
                        limited_since = limited_since or time.monotonic()
                        if time.monotonic() - limited_since >= longest:
                            raise RateLimited(
                                f"{origin} has refused this request with 429 for {longest:.0f} s",
                                retry_after=retry_after(answer.headers),
                            )
                        continue
                    if answer.status < 400:
                        raise MalformedAnswer(f"{origin} redirects ({answer.status}); redirects are not followed")
                    name, text = error_of(answer)
                    if answer.status < 500:
                        raise XrpcError(answer.status, name, text)
                    failure = ServerFailure(
                        f"{origin} answered {answer.status} {name} {text}".rstrip(), status=answer.status
                    )
                    if answer.status == 501:
                        raise failure  # the host lacks the method, and will in a second
            attempt += 1
            if attempt >= tries or limiter.is_paused:
                raise failure
            await asyncio.sleep(BACKOFF * 2**attempt * random.uniform(0.5, 1))  # noqa: S311 - not for secrets


def error_of(answer: HttpResponse) -> tuple[str, str]:
    """The error name and message of a failed answer, JSON or not.

    Returns:
        The XRPC error name (empty if the body is not XRPC's) and a text for people of at most 300 characters.

    Source: XRPC specification, "Error Responses": clients must survive bodies that are not JSON.
    """
    try:
        body = msgspec.json.decode(answer.body, type=_ErrorBody)
        name, text = body.error, body.message
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        name, text = "", answer.body[:600].decode("utf-8", "replace")
    return one_line(name, 60), one_line(text, 300)
