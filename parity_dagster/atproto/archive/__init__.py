"""Repositories as signed archives: what `com.atproto.sync.getRepo` sends, verified down to the last record.

It knows files and bytes, neither the network nor PostgreSQL. Reading order: `repository` (what others use), `car`
(blocks in a file), `commit` and `keys` (who has signed it), `mst` (the tree), `cbor` (what a block says).
"""

from parity_dagster.atproto.archive.cbor import check_cid, cid_of
from parity_dagster.atproto.archive.keys import SigningKey, signing_key
from parity_dagster.atproto.archive.repository import Proof, RepositoryArchive

__all__ = ["Proof", "RepositoryArchive", "SigningKey", "check_cid", "cid_of", "signing_key"]
