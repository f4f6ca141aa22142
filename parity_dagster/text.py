"""Strangers' text, made fit for where it is to stand."""

from __future__ import annotations


def storable(text: str, limit: int = 500) -> str:
    """A text as PostgreSQL can hold it: NUL characters and halves of surrogate pairs become their escapes."""
    return text[:limit].replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()[:limit]
