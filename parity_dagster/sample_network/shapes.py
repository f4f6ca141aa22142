"""Ready-made networks: the demo's, and the shapes that benchmarks are run against."""

# ruff: noqa: S311 -- sample content is drawn from a seeded generator on purpose

from __future__ import annotations

import random
from typing import Literal, get_args

from parity_dagster.sample_network.content import FOLLOW, LIKE, POST, PROFILE, REPOST
from parity_dagster.sample_network.network import SampleNetwork

Shape = Literal["demo", "wide", "narrow", "whale", "latency", "limited", "crowd", "million"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
_DEMO_SHARES = {POST: 0.35, LIKE: 0.4, REPOST: 0.1, FOLLOW: 0.15}
_NAMES = ("ada", "bashir", "chiyo", "dulce", "emeka", "fatma", "gwen", "haakon", "ines", "jun")


def demo_network(accounts: int = 5, records: int = 3000, hosts: int = 2, *, seed: int = 1) -> SampleNetwork:
    """Return a small network of named accounts with all five Bluesky collections."""
    network = SampleNetwork(hosts=hosts, seed=seed)
    rng = random.Random(f"demo/{seed}")
    weights = [rng.lognormvariate(0, 0.6) for _ in range(accounts)]
    left = max(0, records - accounts)
    for number, weight in enumerate(weights):
        share = round(left * weight / sum(weights[number:]))
        left -= share
        counts = {nsid: int(share * part) for nsid, part in _DEMO_SHARES.items()}
        counts[POST] += share - sum(counts.values())
        name = _NAMES[number % len(_NAMES)] + (str(number) if number >= len(_NAMES) else "")
        network.add_account({**counts, PROFILE: 1}, handle=f"{name}.sample.test")
    return network


def benchmark_network(shape: Shape, *, scale: float = 1.0, seed: int = 1, keep_log: int = 10_000) -> SampleNetwork:
    """Return a network of one of the benchmarks' shapes.

    `wide` has 100 accounts × 3 collections × 1,000 records, `narrow` 5,000 × 2 × 20, `whale` one account
    with 500,000 posts, `latency` is wide over 20 hosts that take 50 ms for each answer, `limited` has 100 × 5 × 116
    on a host with the two rate limits of the reference PDS, in windows of 5 s, `crowd` has 10,000 accounts × 3
    collections × 1 to 30 records over 10 hosts, `million` 1,000,000 × 1 × 1 to 3 over 20. `demo` is `demo_network()`.

    Args:
        scale: multiplies the accounts (for `whale`: the records).

    Raises:
        ValueError: no such shape.
    """
    three = (POST, LIKE, FOLLOW)
    hosts = {"latency": 20, "crowd": 10, "million": 20, "narrow": 4, "demo": 2}.get(shape, 1)
    network = SampleNetwork(hosts=hosts, seed=seed, keep_log=keep_log)
    match shape:
        case "demo":
            return demo_network(max(1, round(5 * scale)), round(3000 * scale), seed=seed)
        case "wide" | "latency":
            for _ in range(max(1, round(100 * scale))):
                network.add_account(dict.fromkeys(three, 1000))
        case "narrow":
            for _ in range(max(1, round(5000 * scale))):
                network.add_account(dict.fromkeys((POST, LIKE), 20))
        case "limited":
            for _ in range(max(1, round(100 * scale))):
                network.add_account(dict.fromkeys((*three, REPOST, "com.example.review"), 116))
        case "whale":
            network.add_account({POST: max(1, round(500_000 * scale))})
        case "crowd":
            rng = random.Random(f"crowd/{seed}")
            for _ in range(max(1, round(10_000 * scale))):
                network.add_account({nsid: rng.randint(1, 30) for nsid in three})
        case "million":
            for number in range(max(1, round(1_000_000 * scale))):
                network.add_account({POST: 1 + number % 3})
        case _:
            raise ValueError(f"no shape is called {shape!r}; there are {', '.join(SHAPES)}")
    if shape == "latency":
        for name in network.hosts:
            network.behave(host=name, latency=0.05)
    if shape == "limited":
        # 3,000 requests in 5 minutes, and 6,000 of getRepo beside them: the same rates, in windows that are soon full
        network.behave(host="pds-1", rate_limit=50, repo_rate_limit=100, rate_window=5.0)
    return network
