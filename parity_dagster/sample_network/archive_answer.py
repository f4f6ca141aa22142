"""The answer of getRepo: a repository as a signed archive, right or wrong."""

from __future__ import annotations

from itertools import chain

from parity_dagster.sample_network.archive import stream_archive, surplus
from parity_dagster.sample_network.behaviour import Behaviour
from parity_dagster.sample_network.paging import KeptPages
from parity_dagster.sample_network.repo import Repo
from parity_dagster.sample_network.signing import PrivateKey
from parity_dagster.sample_network.wire import Answer
from parity_dagster.sample_network.wrong_archives import WRONG_ARCHIVES, Repository

CONTENT_TYPE = "application/vnd.ipld.car"
_STREAMED = 20_000


def archive_answer(repo: Repo, key: PrivateKey, behaviour: Behaviour, kept: KeptPages | None) -> Answer:
    """Answer with the archive of a repository; one of more than 20,000 records is streamed.

    Args:
        kept: archives that need not be made again.

    Raises:
        ValueError: it cannot be wrong in the way that is wanted, because it has too few records.
    """
    if behaviour.archive:
        body = WRONG_ARCHIVES[behaviour.archive](Repository(repo.did, repo.rev, dict(repo.blocks()), key))
    else:
        pieces = stream_archive(repo.did, repo.rev, repo.blocks, key)
        if sum(map(repo.count, repo.nsids())) > _STREAMED:
            return Answer(200, content_type=CONTENT_TYPE, stream=chain(pieces, surplus(behaviour.archive_surplus)))
        if kept is None:
            body = b"".join(pieces)
        else:
            body = kept.get(("getRepo", repo.did, repo.rev, key.multibase), lambda: b"".join(pieces))
    if behaviour.archive_surplus:
        return Answer(200, content_type=CONTENT_TYPE, stream=chain([body], surplus(behaviour.archive_surplus)))
    return Answer(200, body, CONTENT_TYPE)
