"""The mapper that some histories of the model register: strict at first, and mended later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parity_dagster.importing.mappers import RecordMapper, SourceRecord
from parity_dagster.sample_network import POST

SKIPPED, REFUSED = "skip ", "bad "
TABLE = """
CREATE TABLE IF NOT EXISTS model_posts (
    did text COLLATE "C", collection text COLLATE "C", rkey text COLLATE "C", version text,
    PRIMARY KEY (did, collection, rkey),
    FOREIGN KEY (did, collection, rkey) REFERENCES atproto_records ON DELETE CASCADE
)
"""


def is_wanted(value: Mapping[str, Any], *, is_strict: bool) -> bool:
    """Whether a record has to be in the table."""
    text = str(value.get("text"))
    return not text.startswith(SKIPPED) and not (is_strict and text.startswith(REFUSED))


class Lenient(RecordMapper):
    """Takes what the strict one refuses."""

    collection = POST
    table = "model_posts"
    columns = ("version",)

    def should_import(self, record: SourceRecord) -> bool:
        return not str(record.value.get("text")).startswith(SKIPPED)

    def to_row(self, record: SourceRecord) -> Mapping[str, Any]:
        return {"version": record.cid}


class Strict(Lenient):
    """Refuses some records."""

    def validate(self, record: SourceRecord) -> None:
        if str(record.value.get("text")).startswith(REFUSED):
            raise ValueError("not by this version of the mapper")
