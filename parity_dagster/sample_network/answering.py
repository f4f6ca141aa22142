"""From a request to the answer as it leaves the host: dispatch, rate limit, faults, compression, log."""

from __future__ import annotations

import time

from parity_dagster.sample_network.directory import plc_answer, web_answer
from parity_dagster.sample_network.faults import compressed, error, spoil
from parity_dagster.sample_network.hosts import Host
from parity_dagster.sample_network.listing import RELAY_METHODS
from parity_dagster.sample_network.network import SampleNetwork
from parity_dagster.sample_network.pds import METHODS
from parity_dagster.sample_network.request_log import LoggedRequest
from parity_dagster.sample_network.scopes import Scope
from parity_dagster.sample_network.wire import Answer, Handler, Request


def answer_for(network: SampleNetwork, host: Host) -> Handler:
    """Return the handler of one host."""

    def handle(request: Request) -> Answer:
        with network.lock:
            return _handle(network, host, request)

    return handle


def _handle(network: SampleNetwork, host: Host, request: Request) -> Answer:
    path, query = request.path, request.query
    method = path[6:] if path.startswith("/xrpc/") else "did" if path.startswith(("/did:", "/.well-known/")) else path
    did = query.get("repo") or query.get("did") or query.get("actor") or (path[1:] if method == "did" else "")
    cursor, collection = query.get("cursor", query.get("after")), query.get("collection", "")
    scope = network.scopes.find(host.name, did, collection)
    # A rate limit belongs to the host whatever a narrower scope says about its answers.
    limited = scope if not (did or collection) else network.scopes.find(host.name)
    answer, rate_headers = _rate_limited(limited, host.name, method)
    if answer is None:
        fault = scope.fault(method, cursor)
        answer = _answer(network, host, request, method, scope)
        if fault is not None:
            answer = spoil(answer, fault)
        is_whole = answer.length is None and answer.stream is None
        if scope.behaviour.gzip and is_whole and "gzip" in request.header("accept-encoding"):
            answer = compressed(answer)
    answer.headers.extend(rate_headers)
    answer.delay += scope.delay()
    network.log.add(
        LoggedRequest(
            host.name,
            method,
            did,
            collection,
            cursor,
            query.get("limit", ""),
            answer.status,
            time.monotonic(),
        )
    )
    return answer


def _answer(network: SampleNetwork, host: Host, request: Request, method: str, scope: Scope) -> Answer:
    is_directory = host.name in network.mirrors
    methods = {} if is_directory else RELAY_METHODS if host is network.relay else METHODS
    if (known := methods.get(method)) is not None:
        return known(network, host, request.query, scope)
    if request.path.startswith("/.well-known/"):
        return web_answer(network, request)
    if is_directory and method == "/export":
        return network.operations.export(request.query, scope)
    if is_directory and method == "did":
        return plc_answer(network, host, request.path[1:])
    if request.path.startswith("/xrpc/"):
        return error(501, "MethodNotImplemented", "Method Not Implemented")
    if request.path == "/_health":
        return Answer(200, b'{"version":"sample"}')
    return Answer(404, b"Not Found", "text/plain")


def _rate_limited(scope: Scope, host: str, method: str) -> tuple[Answer | None, list[bytes]]:
    behaviour = scope.behaviour
    bucket, limit = host, behaviour.rate_limit
    if behaviour.repo_rate_limit and method == "com.atproto.sync.getRepo":
        bucket, limit = f"{host}/getRepo", behaviour.repo_rate_limit
    if not limit:
        return None, []
    left, ends = scope.take(bucket, limit)
    seconds = max(1, round(ends - time.time()))
    headers = []
    if behaviour.rate_headers:
        headers.append(
            b"RateLimit-Limit: %d\r\nRateLimit-Remaining: %d\r\n"
            b"RateLimit-Reset: %d\r\nRateLimit-Policy: %d;w=%d\r\n"
            % (limit, max(0, left), round(ends), limit, round(behaviour.rate_window))
        )
    if left >= 0:
        return None, headers
    if behaviour.retry_after:
        headers.append(b"Retry-After: %d\r\n" % seconds)
    return error(429, "RateLimitExceeded", "Rate Limit Exceeded"), headers
