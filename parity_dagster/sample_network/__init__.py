"""An AT Protocol network in one process, over real HTTP: a PLC directory, a relay and any number of PDSes.

The demo, the tests and the benchmarks import from it. It can be made to misbehave in every way that real
hosts do, at any time, from Python or over its control port. It imports nothing else of this package.

Reading order: `network` and `population` (the model), `repo` and `generated` (records), `behaviour` and `scopes`
(misbehaving), `blocks`, `tree`, `signing`, `archive` and `wrong_archives` (signed repositories), `pds`, `paging`,
`listing`, `seen`, `directory`, `operations`, `faults` (answers), `answering` (how they combine), `wire` and `server`
(bytes and ports), `control` and `command` (from outside), `shapes` (ready-made networks).
"""

from parity_dagster.sample_network.behaviour import DIALECTS, REFERENCE, Behaviour, Fault
from parity_dagster.sample_network.content import FOLLOW, LIKE, POST, PROFILE, REPOST
from parity_dagster.sample_network.hosts import Account, Host
from parity_dagster.sample_network.network import SampleNetwork
from parity_dagster.sample_network.odd import ODD_KINDS, OddKind
from parity_dagster.sample_network.repo import Record
from parity_dagster.sample_network.request_log import LoggedRequest, RequestLog
from parity_dagster.sample_network.server import Running, run_in_thread, serve
from parity_dagster.sample_network.shapes import SHAPES, Shape, benchmark_network, demo_network

__all__ = [
    "DIALECTS",
    "FOLLOW",
    "LIKE",
    "ODD_KINDS",
    "POST",
    "PROFILE",
    "REFERENCE",
    "REPOST",
    "SHAPES",
    "Account",
    "Behaviour",
    "Fault",
    "Host",
    "LoggedRequest",
    "OddKind",
    "Record",
    "RequestLog",
    "Running",
    "SampleNetwork",
    "Shape",
    "benchmark_network",
    "demo_network",
    "run_in_thread",
    "serve",
]
