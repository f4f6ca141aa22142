"""What each fault does to the answer that a host would have given."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from parity_dagster.sample_network.behaviour import Fault, FaultKind
from parity_dagster.sample_network.wire import Answer

_SPOILT = 2**24
_BAD_GATEWAY = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>\r\n</html>\r\n"
_STATUS_ERRORS: dict[FaultKind, tuple[int, str, str]] = {
    "500": (500, "InternalServerError", "Internal Server Error"),
    "501": (501, "MethodNotImplemented", "Method Not Implemented"),
    "503": (503, "UpstreamFailure", "Service Unavailable"),
    "400": (400, "InvalidRequest", "Invalid request"),
    "404": (404, "NotFound", "Not found"),
    "refuse-cursor": (400, "InvalidRequest", "Malformed cursor"),
}


def error(status: int, name: str, message: str) -> Answer:
    """Return an XRPC error (https://atproto.com/specs/xrpc#error-responses)."""
    return Answer(status, json.dumps({"error": name, "message": message}, separators=(",", ":")).encode())


def spoil(answer: Answer, fault: Fault) -> Answer:
    """Return what the client gets instead; of an answer that is streamed, faults of the body take the beginning."""
    kind = fault.kind
    if answer.stream is not None and kind not in ("latency", "headers", "many-headers"):
        answer = replace(answer, body=_beginning(answer.stream), stream=None)
    body = answer.body
    if kind in _STATUS_ERRORS:
        status, name, message = _STATUS_ERRORS[kind]
        return error(status, fault.name or name, fault.message or message)
    if kind in ("429", "429-date", "429-reset", "429-bare"):
        return _too_many(fault)
    match kind:
        case "502":
            return Answer(502, fault.message.encode() or _BAD_GATEWAY, "text/html")
        case "cut":
            return replace(answer, cut_after=fault.size or -1)
        case "reset":
            return Answer(0)
        case "hang":
            return Answer(0, hang=True)
        case "latency":
            return replace(answer, delay=answer.delay + fault.seconds)
        case "drip":
            return replace(answer, drip=fault.seconds)
        case "bad-json":
            return replace(answer, body=body.replace(b":", b";", 3))
        case "truncated-json":
            return replace(answer, body=body[: fault.size or len(body) // 2])
        case "wrong-shape":
            return replace(answer, body=b'{"records":{"a":1},"cursor":7}')
        case "html":
            return Answer(200, b"<!doctype html><title>Welcome</title>", "text/html")
        case "no-records":  # an index that is being rebuilt
            return replace(answer, body=b'{"records":[]}')
        case "empty-body":
            return replace(answer, body=b"")
        case "bad-utf8":
            return replace(answer, body=b"\xff\xfe" + body)
        case "short-length":  # more bytes follow than were announced
            return replace(answer, length=len(body) // 2, close=True)
        case "long-length":  # fewer bytes follow than were announced
            return replace(answer, length=len(body) + 1000, close=True)
        case "padded":
            padding = b" " * max(0, (fault.size or 64 * 2**20) - len(body))
            return replace(answer, body=body + padding)
        case "gzip-bomb":
            bomb = _bomb(fault.size or 2**30)
            return Answer(200, bomb, headers=[b"Content-Encoding: gzip\r\n"])
        case "many-headers":
            lines = [b"X-Header-%d: %b\r\n" % (number, b"x" * 100) for number in range(fault.size or 5000)]
            return replace(answer, headers=lines)
        case "headers":
            return replace(
                answer, headers=[*answer.headers, *(b"%b\r\n" % one.encode() for one in fault.message.splitlines())]
            )
        case "redirect":
            return Answer(302, b"", "text/plain", [b"Location: %b\r\n" % fault.location.encode()])
    raise AssertionError(f"the fault {kind!r} has no effect")


def _beginning(stream: Iterator[bytes]) -> bytes:
    pieces: list[bytes] = []
    size = 0
    for piece in stream:
        pieces.append(piece)
        size += len(piece)
        if size > _SPOILT:
            break
    return b"".join(pieces)


def _too_many(fault: Fault) -> Answer:
    answer = error(429, "RateLimitExceeded", fault.message or "Rate Limit Exceeded")
    until = datetime.now(UTC) + timedelta(seconds=fault.seconds)
    if fault.kind == "429":
        answer.headers.append(b"Retry-After: %d\r\n" % fault.seconds)
    elif fault.kind == "429-date":
        answer.headers.append(b"Retry-After: %b\r\n" % format_datetime(until, usegmt=True).encode())
    elif fault.kind == "429-reset":
        answer.headers.append(b"ratelimit-remaining: 0\r\nratelimit-reset: %d\r\n" % (time.time() + fault.seconds))
    return answer


def _bomb(size: int) -> bytes:
    """Return gzip that unpacks to `size` spaces."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b" " * 2**20
    return b"".join([packer.compress(block) for _ in range(size // len(block))] + [packer.flush()])


def compressed(answer: Answer) -> Answer:
    """Return the answer with its body gzipped."""
    headers = [*answer.headers, b"Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n"]
    return replace(answer, body=gzip.compress(answer.body, 1), headers=headers)
