"""The directory's log of operations: `GET /export`, page by page.

Every operation says all that its account is from then on, so the newest one that was not nullified is the account. A
page is a stranger's text: its bytes, its lines and the times that they claim are bounded, and a line that is none costs
itself.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from parity_dagster.atproto.directory import PlcDirectory
from parity_dagster.atproto.identity import find_handle
from parity_dagster.atproto.ssrf import parse_endpoint
from parity_dagster.atproto.xrpc import XrpcError
from parity_dagster.errors import BlockedEndpoint, MalformedAnswer

if TYPE_CHECKING:
    from parity_dagster.atproto.http import HttpResponse

PAGE = 1000
"""Operations asked for at a time: the most that the reference directory gives."""
MAX_PAGE_BYTES = 16 * 2**20
"""An operation is at most 7.5 kB, and about one on average."""
MAX_AHEAD = timedelta(minutes=10)
"""How far the directory's clock may be ahead of ours."""
MILLISECOND = timedelta(milliseconds=1)

_PLC_DID = re.compile(r"did:plc:[a-z2-7]{24}")
_ANY_DID = re.compile(rb'"did":"(did:plc:[a-z2-7]{24})"')
_DID_KEY = re.compile(r"did:key:(z[1-9A-HJ-NP-Za-km-z]{40,120})")


class Operation(NamedTuple):
    """What an operation makes of an account; without a PDS, only its document can say what is the matter."""

    did: str
    at: datetime
    handle: str | None = None
    pds: str | None = None
    key: str | None = None
    """The key that it signs with, as a Multikey."""


class ExportPage(NamedTuple):
    """Operations in the order they were made.

    Attributes:
        operations: those that were not nullified; at the end accounts whose line is broken, of which nothing is known.
        times: of all operations, nullified ones included, in order.
        broken: lines that are no operation.
        lines: all lines, those of before what was asked for included.
        is_cut: whether the last one is broken.
    """

    operations: list[Operation]
    times: list[datetime]
    broken: int = 0
    lines: int = 0
    is_cut: bool = False


class _Line(msgspec.Struct):
    did: str
    createdAt: str
    operation: msgspec.Raw
    nullified: bool = False


class _Service(msgspec.Struct):
    type: str = ""
    endpoint: str = ""


class _Services(msgspec.Struct):
    atproto_pds: _Service = msgspec.field(default_factory=_Service)


class _Methods(msgspec.Struct):
    atproto: str = ""


class _Operation(msgspec.Struct):
    type: str = ""
    services: _Services = msgspec.field(default_factory=_Services)
    verificationMethods: _Methods = msgspec.field(default_factory=_Methods)
    alsoKnownAs: list[msgspec.Raw] = []
    handle: str = ""
    service: str = ""
    signingKey: str = ""


_lines = msgspec.json.Decoder(_Line)
_operations = msgspec.json.Decoder(_Operation)
_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError, OverflowError)


class Export:
    """Asks the directory's mirrors for their log."""

    def __init__(self, directory: PlcDirectory, *, allow_private: bool) -> None:
        self._directory = directory
        self._allow_private = allow_private

    async def read(self, after: datetime | None, newer_than: datetime | None) -> ExportPage:
        """A page of what came after a time; of mirrors that have nothing new, the others are asked.

        A page with broken lines is asked for once more, because what was cut on its way need not be cut again.

        Args:
            after: None for the first page.
            newer_than: what is known already; a page is new if it holds anything later, or no less of that moment.

        Raises:
            TransientError: no mirror has a page that can be read.
        """
        params = {"count": str(PAGE)}
        if after is not None:
            params["after"] = f"{after.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{after.microsecond // 1000:03d}Z"

        def read(origin: str, answer: HttpResponse | XrpcError) -> ExportPage:
            if isinstance(answer, XrpcError):
                raise MalformedAnswer(f"{origin} gives no export: {answer}") from answer
            return parse_page(answer.body, origin, after=after, allow_private=self._allow_private)

        def is_new(page: ExportPage) -> bool:
            return bool(page.times) and (newer_than is None or page.times[-1] > newer_than)

        pages: list[ExportPage] = []
        for _ in range(2):
            pages += await self._directory.ask(
                "/export", read, params, max_bytes=MAX_PAGE_BYTES, is_enough=lambda pages: is_new(pages[-1])
            )
            if not pages[-1].broken:
                break
        return max(pages, key=lambda page: (is_new(page), len(page.times), -page.broken))


def parse_page(body: bytes, origin: str, *, after: datetime | None, allow_private: bool) -> ExportPage:
    """Read JSON lines.

    Raises:
        MalformedAnswer: more lines than were asked for, or not one that is an operation.

    Source: did:plc specification v0.1, "DID PLC Directory API"; the reference directory's source for what is nullified.
    """
    lines = body.split(b"\n", PAGE + 1)
    if len(lines) > PAGE + 1 or (len(lines) == PAGE + 1 and lines[-1].strip()):
        raise MalformedAnswer(f"{origin} gives more than the {PAGE:,} operations that were asked for")
    latest = datetime.now(UTC) + MAX_AHEAD
    found: list[tuple[datetime, Operation | None]] = []
    doubtful: list[str] = []
    broken = lines_read = 0
    is_cut = False
    for line in lines:
        if not line or line.isspace():
            continue
        lines_read += 1
        try:
            given = _lines.decode(line)
            at = datetime.fromisoformat(given.createdAt).astimezone(UTC)
            at = at.replace(microsecond=at.microsecond // 1000 * 1000)
            is_operation = at <= latest and _PLC_DID.fullmatch(given.did)
        except _UNREADABLE:
            is_operation = None
        is_cut = not is_operation
        if not is_operation:
            broken += 1
            doubtful += [did.decode() for did in _ANY_DID.findall(line[:200])[:1]]
        elif after is None or at >= after:
            found.append((at, None if given.nullified else _read(given, at, allow_private=allow_private)))
    if broken and broken == lines_read:
        raise MalformedAnswer(f"{origin} gives an export of which no line is an operation")
    found.sort(key=lambda one: one[0])  # stable: those of one moment keep their order
    operations = [one for _, one in found if one is not None]
    if found:  # whose newest operation cannot be read is looked up
        operations += [Operation(did, found[-1][0]) for did in doubtful]
    return ExportPage(operations, [at for at, _ in found], broken, lines_read, is_cut)


def _read(line: _Line, at: datetime, *, allow_private: bool) -> Operation:
    nothing = Operation(line.did, at)
    try:
        operation = _operations.decode(line.operation)
    except _UNREADABLE:
        return nothing
    if operation.type == "create":
        names = [msgspec.json.encode(f"at://{operation.handle.removeprefix('at://')}")]
        endpoint, key = operation.service, operation.signingKey
        if endpoint and not endpoint.startswith(("http://", "https://")):
            endpoint = f"https://{endpoint}"
    elif operation.type == "plc_operation":
        names, key = list(operation.alsoKnownAs), operation.verificationMethods.atproto
        service = operation.services.atproto_pds
        endpoint = service.endpoint if service.type == "AtprotoPersonalDataServer" else ""
    else:
        return nothing
    try:
        pds = parse_endpoint(endpoint, allow_private=allow_private)
    except BlockedEndpoint:
        return nothing
    known_key = _DID_KEY.fullmatch(key)
    return nothing._replace(handle=find_handle(names), pds=pds, key=known_key[1] if known_key else None)
