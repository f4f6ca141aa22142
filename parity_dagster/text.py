"""Strangers' text, made fit for where it is to stand."""

from __future__ import annotations


def escaped(text: str) -> str:
    """A text in which everything that does not print (line ends, control characters, marks that change the direction)
    is written as in Python's source, so that it stays where it is put."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def one_line(text: str, limit: int = 2000) -> str:
    """A text on one line, made for reading: spaces of every kind and line ends are one space, the rest is escaped, and
    what is longer than the limit is cut."""
    line = escaped(" ".join(text[: 4 * limit].split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def storable(text: str, limit: int = 500) -> str:
    """A text as PostgreSQL can hold it: NUL characters and halves of surrogate pairs become their escapes."""
    return text[:limit].replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()[:limit]
