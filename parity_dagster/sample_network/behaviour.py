"""How a host misbehaves: the dialect it speaks, its limits, and the faults that befall its answers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from parity_dagster.sample_network.wrong_archives import WRONG_ARCHIVES

ACCOUNT_LIES: dict[str, str] = {
    "repeated": "every page begins with the account that ended the one before, and names its first one twice",
    "invalid": "every page has entries that name no account: odd DIDs, none, or no objects",
    "two-revs": "listRepos names the first account of each page once more, with a revision that it had long ago",
    "no-rev": "listRepos leaves out head, rev, active and status",
    "old-rev": "listRepos shows a revision that the repository had long ago",
    "future-rev": "listRepos shows a revision that no repository has yet",
    "bad-rev": "listRepos shows revisions that are none",
    "all-active": "listRepos calls every account active",
    "none-active": "listRepos calls every account deleted",
}
EXPORT_LIES: dict[str, str] = {
    "shuffled": "the lines of a page are in no order",
    "repeated": "every page begins with fifty operations that were given before",
    "late": "every page ends with operations that were given before",
    "broken": "every seventh line is cut",
    "cut": "a page ends in the middle of a line",
    "same": "the first page is given whatever the cursor",
    "future": "operations are of next year",
    "wide": "a page has twice as many lines as were asked for",
}
FaultKind = Literal[
    "500", "501", "502", "503", "400", "404", "429", "429-date", "429-reset", "429-bare", "cut", "reset", "bad-json",
    "truncated-json", "html", "short-length", "long-length", "drip", "hang", "latency", "padded", "redirect",
    "refuse-cursor", "many-headers", "gzip-bomb", "bad-utf8", "wrong-shape", "empty-body", "no-records", "headers",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong with some of a host's answers.

    Attributes:
        kind: what goes wrong; `faults` says what each word does.
        method: only requests of this XRPC method (`listRecords`, or the whole NSID), `did` for DID documents;
            "" for all.
        with_cursor: only requests with (True) or without (False) a cursor; None for both.
        skip: matching requests that pass unharmed first.
        every: then every n-th one is hit; 0 hits each.
        probability: chance to be hit, from the behaviour's seed; 0 means always.
        times: stop after that many hits; None never stops. `Fault(kind="500", times=3)` fails the next three.
        seconds: Retry-After of a 429, added wait of a latency, whole duration of a drip.
        size: bytes of padding, of a bomb, or sent before a cut (0: half of the answer).
        location: target of a redirect.
        name: XRPC error name of a 400, 404, 500, 501 or 503.
        message: text of a 400, 404 or 5xx; the header lines that `headers` adds.
    """

    kind: FaultKind
    method: str = ""
    with_cursor: bool | None = None
    skip: int = 0
    every: int = 0
    probability: float = 0.0
    times: int | None = None
    seconds: float = 1.0
    size: int = 0
    location: str = "http://169.254.169.254/latest/meta-data/"
    name: str = ""
    message: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"no fault is called {self.kind!r}; there are {', '.join(get_args(FaultKind))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How a host answers; the default is the reference PDS. Q numbers: docs/quirks.md.

    Attributes:
        order: of records: `desc` by rkey (reference), `asc` by rkey (arroba, cirrus), `clock` newest write
            first (cocoon). Q8
        cursor: form of cursors: `rkey`, `path` (collection/rkey), `clock` (TID of the write; order must be
            `clock`). Q7
        last_cursor: whether the last non-empty page carries a cursor. Q1, Q2
        inclusive: whether a page starts with the record that its cursor names. Q5
        bad_cursor: what is done with a cursor of another form: `use` it anyway, `ignore` it and start over,
            `refuse` it with 400. Q6
        loop: "" none; `ignore` every cursor is ignored; `same` a cursor brings itself back; `advance` every
            page shows the first records and a new cursor; lists of accounts, too. Q6
        page_cap: most records (or accounts) in a page whatever the limit; 0 is no cap. Q3
        empty_every: every n-th page of a pair is empty with an advancing cursor that skips nothing (n ≥ 2,
            rkey order); of a list of accounts as well; 0 none. Q4, Q25
        over_limit: answer to a limit over 100 (over `account_limit` of accounts): `refuse` with 400, `plain` text 400,
            `fail` with 500, `clamp`, `honour`. Q10
        unknown_repo: answer of listRecords for a repo the host does not serve: `400`, `404`, `500`, `plain`
            text 400, `empty` list. Q11
        export: how the directory's `/export` lies, one of `EXPORT_LIES`; "" tells the truth. Q35
        export_page: most operations in a page of it; 0 is the reference directory's 1,000.
        export_lag: seconds by which it is behind.
        account_limit: greatest limit that listRepos and listReposByCollection take; 0 is their lexicons': 1,000 and
            2,000. Q24
        account_order: in which listReposByCollection names accounts: `seen`, new ones last (reference), or `did`, new
            ones anywhere. Q24
        account_lies: what is wrong with lists of accounts, of `listing.ACCOUNT_LIES`. Q24
        sync_methods: whether getRepoStatus, getLatestCommit, getRepo, listRepos and listReposByCollection exist;
            otherwise 501.
        archive: what is wrong with the archives of getRepo, one of `wrong_archives.WRONG_ARCHIVES`; "" is nothing. Some
            ways to be wrong need ten records.
        archive_surplus: bytes of blocks that nothing links to and that follow in an archive; -1 never ends.
        rev_ahead: seconds by which the revision that getLatestCommit tells is ahead of the true one (or behind, if less
            than 0).
        echo_repo: URIs carry the `repo` parameter as it was asked. Q14
        listed_collections: what describeRepo claims instead of the truth; None tells the truth. Q26
        poison: rkeys whose page fails with `poison_status`. Q13
        poison_status: 500 or 400.
        pretty: JSON with spaces and line breaks instead of compact.
        gzip: compress answers for clients that accept it.
        latency: seconds before each answer.
        jitter: up to that many seconds more, by chance.
        rate_limit: requests allowed per host and window, whatever narrower scopes say; 0 is no limit and no
            RateLimit headers. Q27
        repo_rate_limit: the same for getRepo alone, which then does not count among the others; 0 is no limit of its
            own.
        rate_window: seconds of the window.
        rate_headers: whether RateLimit-* headers are sent at all.
        retry_after: whether a 429 of the limit carries Retry-After.
        faults: what goes wrong; the first that hits a request wins.
        seed: of every chance.
    """

    order: Literal["desc", "asc", "clock"] = "desc"
    cursor: Literal["rkey", "path", "clock"] = "rkey"
    last_cursor: bool = True
    inclusive: bool = False
    bad_cursor: Literal["use", "ignore", "refuse"] = "use"
    loop: Literal["", "ignore", "same", "advance"] = ""
    page_cap: int = 0
    empty_every: int = 0
    over_limit: Literal["refuse", "plain", "fail", "clamp", "honour"] = "refuse"
    unknown_repo: Literal["400", "404", "500", "plain", "empty"] = "400"
    export: str = ""
    export_page: int = 0
    export_lag: float = 0.0
    account_limit: int = 0
    account_order: Literal["seen", "did"] = "seen"
    account_lies: tuple[str, ...] = ()
    sync_methods: bool = True
    archive: str = ""
    archive_surplus: int = 0
    rev_ahead: float = 0.0
    echo_repo: bool = False
    listed_collections: tuple[str, ...] | None = None
    poison: tuple[str, ...] = ()
    poison_status: Literal[400, 500] = 500
    pretty: bool = False
    gzip: bool = False
    latency: float = 0.0
    jitter: float = 0.0
    rate_limit: int = 0
    repo_rate_limit: int = 0
    rate_window: float = 300.0
    rate_headers: bool = True
    retry_after: bool = True
    faults: tuple[Fault, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.archive and self.archive not in WRONG_ARCHIVES:
            raise ValueError(f"no archive is {self.archive!r}; they are {', '.join(WRONG_ARCHIVES)}")
        if self.export and self.export not in EXPORT_LIES:
            raise ValueError(f"no export is {self.export!r}; they are {', '.join(EXPORT_LIES)}")
        if unknown := set(self.account_lies) - set(ACCOUNT_LIES):
            raise ValueError(f"no lie about accounts is {unknown.pop()!r}; they are {', '.join(ACCOUNT_LIES)}")


REFERENCE = Behaviour()

DIALECTS: dict[str, Behaviour] = {
    "reference": REFERENCE,
    "cocoon": Behaviour(order="clock", cursor="clock", last_cursor=False, over_limit="honour", unknown_repo="empty"),
    "rsky": Behaviour(last_cursor=False, over_limit="fail", unknown_repo="500"),
    "millipds": Behaviour(last_cursor=False, over_limit="plain", unknown_repo="empty", echo_repo=True),
    "tranquil": Behaviour(over_limit="clamp", bad_cursor="ignore", empty_every=3, echo_repo=True),
    "arroba": Behaviour(order="asc", cursor="path", inclusive=True, last_cursor=False, bad_cursor="refuse"),
    "cirrus": Behaviour(
        order="asc", cursor="path", inclusive=True, last_cursor=False, over_limit="clamp", unknown_repo="404"
    ),
}
"""Other PDS implementations as their sources were read."""


def change(behaviour: Behaviour, changes: dict[str, Any]) -> Behaviour:
    """Return a behaviour with some fields changed; `ValueError` for a field or a value that does not exist.

    Lists become tuples and mappings in `faults` become `Fault`, so JSON will do.
    """
    known = {one.name for one in fields(Behaviour)}
    if unknown := changes.keys() - known:
        raise ValueError(f"a behaviour has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()
    }
    if "faults" in values:
        values["faults"] = tuple(one if isinstance(one, Fault) else Fault(**one) for one in values["faults"])
    return Behaviour(**{**{one: getattr(behaviour, one) for one in known}, **values})
