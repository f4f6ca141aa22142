"""The accounts and hosts that are imported: how many records, lists and requests, and who lives where."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from parity_dagster.sample_network import FOLLOW, LIKE, POST, PROFILE, REPOST

Numbers = NDArray[np.float64]

PAGE = 100
MEDIAN, MEAN = 15, 200
"""Records of an account: 4,700 million of 24 million accounts were counted at the end of 2024. Half of them had 7
posts at most and 96 on average, also in 2024, which a lognormal distribution gives, and the longest hundredth, too."""
SHARES: Mapping[str, float] = {POST: 0.35, LIKE: 0.4, REPOST: 0.1, FOLLOW: 0.15}
"""What they are records of; and each account has a profile."""
COLLECTIONS = len(SHARES) + 1
KINDS = 2**16
"""Different accounts, from which those of a simulation are drawn."""


def requests_by_pages(counts: Mapping[str, int]) -> int:
    """What reading an account's lists asks its host: its revision, the pages, and one more to see the end of each list.

    The reference PDS ends a list with an empty page; one that has no record is that page.
    """
    return 1 + sum(math.ceil(count / PAGE) + 1 for count in counts.values())


@dataclass(frozen=True)
class Kinds:
    """The different accounts.

    Attributes:
        records: of each.
        requests: that reading its lists takes.
        longest: pages of its longest list, which are read one after the other.
    """

    records: Numbers
    requests: Numbers
    longest: Numbers


def make_kinds(count: int = KINDS) -> Kinds:
    """Accounts whose numbers of records are distributed as in the network."""
    normal = NormalDist(math.log(MEDIAN), math.sqrt(2 * math.log(MEAN / MEDIAN)))
    totals = [math.exp(normal.inv_cdf((number + 0.5) / count)) for number in range(count)]
    counts = [{**{nsid: round(total * part) for nsid, part in SHARES.items()}, PROFILE: 1} for total in totals]
    return Kinds(
        np.array([sum(one.values()) for one in counts], float),
        np.array([requests_by_pages(one) for one in counts], float),
        np.array([math.ceil(max(one.values()) / PAGE) + 1 for one in counts], float),
    )


def one_large_host(hosts: int = 200, share: float = 0.6) -> Numbers:
    """Shares of hosts of a list of accounts as people have them: most on one, the others by Zipf's law."""
    return np.concatenate([[share], (1 - share) * _zipf(hosts - 1)])


def whole_network(large: int, small: int = 16_000, share: float = 0.94) -> Numbers:
    """Shares of hosts of the whole network: equally large ones of one company, and many that are small.

    Args:
        share: of accounts on the large ones; of 65 million DIDs that were no junk in April 2026, 61 million were there.
    """
    return np.concatenate([np.full(large, share / large), (1 - share) * _zipf(small)])


def _zipf(count: int) -> Numbers:
    weights = 1 / np.arange(1, count + 1, dtype=float)
    return weights / weights.sum()
