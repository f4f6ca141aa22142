"""What is imported, by whom, and how often: the workloads of the benchmark and their sizes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

POST, LIKE, FOLLOW = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"
REPOST, REVIEW = "app.bsky.feed.repost", "com.example.review"


@dataclass(frozen=True, slots=True)
class Contender:
    """What is measured in a round: a program, on some or all of the accounts, from some state of network and database.

    Attributes:
        program: name of a function, a key of `benchmarks.contenders.__main__.CONTENDERS`.
        label: how results call it.
        share: part of the accounts it imports; less than 1 for those that would take minutes.
        keep: leave the database as the contender before has left it.
        network: control calls beforehand, as (method, arguments).
        options: further keywords of the program.
        max_rounds: takes part in so many rounds at most.
    """

    program: str
    label: str
    share: float = 1.0
    keep: bool = False
    network: tuple[tuple[str, dict[str, object]], ...] = ()
    options: dict[str, object] = field(default_factory=dict)
    max_rounds: int = 99


@dataclass(frozen=True, slots=True)
class Workload:
    """A network and the contenders of one round over it.

    Attributes:
        name: as on the command line.
        about: one line for the report.
        shape: of the sample network.
        collections: imported of every account.
        rounds: of the full benchmark; `--quick` runs one.
        quick_scale: scale of the network under `--quick`.
        contenders: in their order.
    """

    name: str
    about: str
    shape: str
    collections: tuple[str, ...]
    rounds: int
    quick_scale: float
    contenders: tuple[Contender, ...]


DOWNLOAD = Contender("download", "floor: download")
COPY = Contender("copy", "floor: COPY", options={"connections": 1})
PARALLEL_COPY = Contender("copy", "floor: COPY over 2 connections", options={"connections": 2})
LISTS, WHOLE = "parity, ImportService", "parity, whole repositories"
SERVICE = Contender("service", LISTS)
REPOSITORIES = Contender("repositories", WHOLE)
Calls = tuple[tuple[str, dict[str, object]], ...]
_NO_GATE: Calls = (("behave", {"sync_methods": False}),)
_GATE: Calls = (("behave", {"sync_methods": True}),)
# The reference PDS allows 3,000 requests in 5 minutes; here the same ten per second, in a window of 5 s.
RATE_LIMIT, RATE_WINDOW = 50, 5.0
_LIMITED: Calls = (("behave_all_hosts", {"latency": 0.05, "rate_limit": RATE_LIMIT, "rate_window": RATE_WINDOW}),)
# The shape's limits as they are; whoever sets a behaviour begins new windows.
_NEW_WINDOWS: Calls = (("behave_all_hosts", {}),)
_UNLIMITED: Calls = (("behave_all_hosts", {"latency": 0.05, "rate_limit": 0}),)


def peers(share: float, rounds: int = 99) -> tuple[Contender, Contender]:
    """The two ways most people would take instead, on a share of the accounts."""
    return (
        Contender("sdk", "SDK loop (atproto)", share, max_rounds=rounds),
        Contender("dlt", "dlt REST source", share, max_rounds=rounds),
    )


WORKLOADS = (
    Workload(
        "wide",
        "100 accounts × 3 collections × 1,000 records",
        "wide",
        (POST, LIKE, FOLLOW),
        5,
        0.1,
        (DOWNLOAD, COPY, PARALLEL_COPY, SERVICE, Contender("dagster", "parity, Dagster run"), *peers(0.1)),
    ),
    Workload(
        "narrow",
        "5,000 accounts × 2 collections × 20 records",
        "narrow",
        (POST, LIKE),
        1,
        0.04,
        (DOWNLOAD, COPY, SERVICE, REPOSITORIES, *peers(0.02)),
    ),
    Workload(
        "limited",
        "100 accounts × 5 collections × 116 records on a host with the two rate limits of the reference PDS",
        "limited",
        (POST, LIKE, FOLLOW, REPOST, REVIEW),
        1,
        0.1,
        (
            replace(SERVICE, network=_NEW_WINDOWS),
            replace(REPOSITORIES, network=_NEW_WINDOWS),
            replace(peers(0.2)[0], network=_NEW_WINDOWS),
        ),
    ),
    Workload(
        "whale",
        "1 account × 500,000 records",
        "whale",
        (POST,),
        1,
        0.06,
        (
            DOWNLOAD,
            COPY,
            replace(SERVICE, options={"halves": True}),
            replace(REPOSITORIES, options={"halves": True, "weigh": True}),
        ),
    ),
    Workload(
        "refresh",
        "wide again: unchanged, unchanged without a revision to compare, 2 % of the records changed",
        "wide",
        (POST, LIKE, FOLLOW),
        1,
        0.1,
        (
            Contender("service", "first import", network=_GATE),
            Contender("refresh", "unchanged", keep=True),
            Contender("refresh", "unchanged, getLatestCommit answers 501", keep=True, network=_NO_GATE),
            Contender("refresh", "2 % changed", keep=True, network=(*_GATE, ("change_records", {"percent": 2}))),
        ),
    ),
    Workload(
        "latency",
        "wide over 20 hosts that take 50 ms for each answer",
        "latency",
        (POST, LIKE, FOLLOW),
        1,
        0.2,
        (
            Contender("service", "hosts without a limit", network=_UNLIMITED),
            Contender("service", "hosts that allow 50 requests in 5 s", network=_LIMITED),
        ),
    ),
)
