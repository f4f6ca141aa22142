"""One typed column: which field of the record it shows, and as what.

Every expression looks at the JSON type first, so that none of them can fail whatever a record holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from parity_dagster.errors import SettingsError

Kind = Literal["text", "timestamp", "texts", "integer", "number", "boolean", "json"]

SQL_TYPES: dict[Kind, str] = {
    "text": "text",
    "timestamp": "timestamptz",
    "texts": "text[]",
    "integer": "bigint",
    "number": "numeric",
    "boolean": "boolean",
    "json": "jsonb",
}

NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_PATH = re.compile(r"[A-Za-z0-9$_-]+(\.[A-Za-z0-9$_-]+)*")

_EXPRESSIONS: dict[Kind, str] = {
    "text": "CASE WHEN jsonb_typeof({json}) = 'string' THEN {text} END",
    # only a string's text: an array of a few bytes can be gigabytes of digits
    "timestamp": "CASE WHEN jsonb_typeof({json}) = 'string' THEN parity_timestamp({text}) END",
    "texts": (
        "CASE WHEN jsonb_typeof({json}) = 'array' THEN ARRAY(SELECT item #>> '{{}}'"
        " FROM jsonb_array_elements({json}) item WHERE jsonb_typeof(item) = 'string') END"
    ),
    # 18 digits always fit into a bigint
    "integer": ("CASE WHEN jsonb_typeof({json}) = 'number' AND {text} ~ '^-?[0-9]{{1,18}}$' THEN ({text})::bigint END"),
    "number": "CASE WHEN jsonb_typeof({json}) = 'number' THEN ({json})::numeric END",
    "boolean": "CASE WHEN jsonb_typeof({json}) = 'boolean' THEN ({text})::boolean END",
    "json": "{json}",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a typed view.

    Args:
        path: field of the record; dots lead into objects (`reply.root.uri`).
        kind: what the column holds; a value of another type is null. `timestamp` takes the datetimes of the
            AT Protocol's data model (`2024-07-01T12:00:00.000Z`), `texts` is an array of strings.
        comment: what it means, for readers of the database and of the Dagster UI.

    Raises:
        SettingsError: a name or path that cannot be one.
    """

    name: str
    path: str
    kind: Kind = "text"
    comment: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise SettingsError(f"{self.name!r} is not a column name; use lower-case letters, digits and _")
        if not _PATH.fullmatch(self.path):
            raise SettingsError(f"{self.path!r} is not a path to a field; write it as reply.root.uri")
        if self.kind not in SQL_TYPES:
            raise SettingsError(f"{self.kind!r} is not a kind of column; there are {', '.join(SQL_TYPES)}")

    @property
    def sql_type(self) -> str:
        """PostgreSQL type of the column."""
        return SQL_TYPES[self.kind]

    @property
    def expression(self) -> str:
        """SQL that yields the column's value from `value`, and never an error."""
        steps = self.path.split(".")
        arrow, path = ("", f"'{steps[0]}'") if len(steps) == 1 else ("#", "'{" + ",".join(steps) + "}'")
        json = f"value #> {path}" if arrow else f"value -> {path}"
        text = f"value #>> {path}" if arrow else f"value ->> {path}"
        return _EXPRESSIONS[self.kind].format(json=json, text=text)
