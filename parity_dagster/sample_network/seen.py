"""Which accounts a collection directory has ever seen writing to a collection, in the order it saw them."""

from __future__ import annotations


class SeenAccounts:
    """An index that only grows, as the reference's: who has deleted everything or is gone is still named."""

    def __init__(self) -> None:
        self._listed: dict[str, list[str]] = {}
        self._known: dict[str, set[str]] = {}

    def add(self, nsid: str, did: str) -> None:
        """Note that an account has written to a collection."""
        known = self._known.setdefault(nsid, set())
        if did not in known:
            known.add(did)
            self._listed.setdefault(nsid, []).append(did)

    def of(self, nsid: str) -> list[str]:
        """Return the accounts of a collection, first seen first; not to be changed."""
        return self._listed.get(nsid, [])
