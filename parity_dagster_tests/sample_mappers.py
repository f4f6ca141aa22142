"""Mappers that the tests register by name, as a user does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parity_dagster.importing.mappers import RecordMapper, SourceRecord
from parity_dagster.sample_network import LIKE, POST

ARTICLES = """
CREATE TABLE articles (
    did text COLLATE "C", collection text COLLATE "C", rkey text COLLATE "C",
    title text NOT NULL, words integer CHECK (words < 100), langs text[], raw jsonb,
    PRIMARY KEY (did, collection, rkey),
    FOREIGN KEY (did, collection, rkey) REFERENCES atproto_records ON DELETE CASCADE
)
"""


class Articles(RecordMapper):
    """Posts that say `skip` are not wanted, those that say `bad` are not valid."""

    collection = POST
    table = "articles"
    columns = ("title", "words", "langs", "raw")

    def should_import(self, record: SourceRecord) -> bool:
        return "skip" not in record.value["text"]

    def validate(self, record: SourceRecord) -> None:
        if "bad" in record.value["text"]:
            raise ValueError("this is no article")

    def to_row(self, record: SourceRecord) -> Mapping[str, Any]:
        value = record.value
        if "surprise" in value["text"]:
            return {"nonsense": 1}
        return {
            "title": value.get("title", value["text"]),
            "words": value.get("words", len(value["text"].split())),
            "langs": value.get("langs"),
            "raw": {"uri": record.uri, "tags": [1, {"a": None}]},
        }


class Unreadable(Exception):
    """An exception whose text is no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Hostile(RecordMapper):
    """Refuses records with texts that no column of PostgreSQL holds."""

    collection = POST

    def validate(self, record: SourceRecord) -> None:
        match record.value["text"]:
            case "nul":
                raise ValueError("a\x00b")
            case "surrogate":
                raise ValueError("a\ud800b")
            case "unreadable":
                raise Unreadable


class NoLikes(RecordMapper):
    """Takes nothing."""

    collection = LIKE

    def should_import(self, record: SourceRecord) -> bool:
        return False


class NoPosts(RecordMapper):
    """Takes no post."""

    collection = POST

    def should_import(self, record: SourceRecord) -> bool:
        return False


class Plain(RecordMapper):
    """Writes one column; the cheapest mapper that writes at all."""

    collection = POST
    table = "plain"
    columns = ("text",)

    def to_row(self, record: SourceRecord) -> Mapping[str, Any]:
        return {"text": record.value.get("text")}


class OnlyLooks(RecordMapper):
    """Takes everything and writes nothing."""

    collection = POST


class Second(NoLikes):
    """A second mapper for the same collection."""


class WithoutColumns(RecordMapper):
    collection = POST
    table = "articles"


class WithoutCollection(RecordMapper):
    pass


class KeyColumn(RecordMapper):
    collection = POST
    table = "articles"
    columns = ("rkey",)
