"""Records as pandas frames, for analysis; pandas is loaded when the first frame is made."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date
from decimal import Decimal
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from parity_dagster.errors import SettingsError
from parity_dagster.identifiers import parse_did
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store.typed.columns import Kind

if TYPE_CHECKING:
    import pandas as pd

_ROWS_AT_ONCE = 20_000
_DEEPEST = 20_000
"""Python calls that a record's nesting may take; imported ones nest 1,000 levels at most."""


@overload
def read_records(
    collection: str,
    *,
    dids: Iterable[str] | None = None,
    columns: Sequence[str] | None = None,
    since: str | date | None = None,
    chunksize: None = None,
    settings: Settings | None = None,
) -> pd.DataFrame: ...


@overload
def read_records(
    collection: str,
    *,
    dids: Iterable[str] | None = None,
    columns: Sequence[str] | None = None,
    since: str | date | None = None,
    chunksize: int,
    settings: Settings | None = None,
) -> RecordFrames: ...


def read_records(
    collection: str,
    *,
    dids: Iterable[str] | None = None,
    columns: Sequence[str] | None = None,
    since: str | date | None = None,
    chunksize: int | None = None,
    settings: Settings | None = None,
) -> pd.DataFrame | RecordFrames:
    """Read imported records into pandas.

    The columns of a typed view are its own, those of a collection are `did, rkey, uri, cid, value, active,
    first_seen_at, updated_at`. Texts are of the dtype `string`, times `datetime64[us, UTC]`, integers `Int64`, numbers
    `Float64`, booleans `boolean`; lists of texts and JSON are Python objects. What is null is `NA` (`NaT`, None).

    Args:
        collection: a typed view (`posts`), or an NSID for the records as they are.
        dids: only these accounts; all if not given.
        columns: only these columns, in this order; all if not given.
        since: only records whose `createdAt` is this time or later; a time without a zone is in UTC.
        chunksize: rows per frame; with it, the frames come one by one, all of one snapshot, and memory holds one.
        settings: which database; read from `PARITY_*` variables if not given.

    Returns:
        One frame, or with `chunksize` an iterator of frames; the first may be empty, so that there always is one.

    Raises:
        SettingsError: no such view, collection or column, or no such time; the message names what there is.
        InvalidIdentifier: one of `dids` is no DID.
        DatabaseError: PostgreSQL cannot be read.
    """
    if chunksize is not None and chunksize < 1:
        raise SettingsError(f"chunksize is {chunksize}; give the number of rows of a frame, 1 or more")
    frames = RecordFrames(collection, dids, columns, since, chunksize or _ROWS_AT_ONCE, settings or load_settings())
    if chunksize is not None:
        return frames
    import pandas as pd

    with frames:
        parts = list(frames)
    return parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)


class RecordFrames(Iterator["pd.DataFrame"]):
    """Frames of a collection, one after the other; a context manager that lets go of the database.

    What `read_records` returns if it is given a `chunksize`.
    """

    def __init__(
        self,
        collection: str,
        dids: Iterable[str] | None,
        columns: Sequence[str] | None,
        since: str | date | None,
        chunksize: int,
        settings: Settings,
    ) -> None:
        accounts = None
        if dids is not None:
            given = [dids] if isinstance(dids, str) else dids
            accounts = [parse_did(did, allow_private=settings.allow_private_hosts) for did in given]
        names = [columns] if isinstance(columns, str) else columns
        self._frames = _read(collection, accounts, names, since, chunksize, settings)
        next(self._frames)  # what is asked for wrongly is said now, not with the first frame

    def __next__(self) -> pd.DataFrame:
        """Read the next frame."""
        frame = next(self._frames)
        assert frame is not None
        return frame

    def close(self) -> None:
        """Let go of the database; what was not read is not read any more."""
        self._frames.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read(
    collection: str,
    dids: Sequence[str] | None,
    columns: Sequence[str] | None,
    since: str | date | None,
    chunksize: int,
    settings: Settings,
) -> Generator[pd.DataFrame | None]:
    """Frames after a None, which comes when it is known that there is such a thing."""
    from parity_dagster.store.records import Selection, find_source, moment, open_snapshot, stream_rows

    selection = Selection(dids, None if since is None else moment(since))
    with open_snapshot(settings) as conn:
        source = find_source(conn, settings, collection).choose(columns)
        yield None
        kinds: dict[str, Kind] = {name: kind for name, (kind, _) in source.columns.items()}
        with closing(stream_rows(conn, source, selection)) as stream:
            rows = list(islice(stream, chunksize))
            while True:
                yield _frame(rows, kinds)
                rows = list(islice(stream, chunksize))
                if not rows:
                    break


def _frame(rows: Sequence[tuple[Any, ...]], kinds: Mapping[str, Kind]) -> pd.DataFrame:
    import pandas as pd

    columns = zip(*rows, strict=True) if rows else [()] * len(kinds)
    return pd.DataFrame(
        {name: _series(kind, values) for (name, kind), values in zip(kinds.items(), columns, strict=True)}
    )


def _series(kind: Kind, values: Sequence[Any]) -> pd.Series[Any]:
    import numpy as np
    import pandas as pd

    match kind:
        case "timestamp":
            # from whole numbers, and not in nanoseconds: those end in the year 2262, and records do not
            missing = np.iinfo(np.int64).min
            moments = np.array([missing if value is None else value for value in values], dtype=np.int64)
            return pd.Series(moments.view("datetime64[us]")).dt.tz_localize("UTC")
        case "text":
            return pd.Series(values, dtype="string")
        case "integer":
            return pd.Series(values, dtype="Int64")
        case "number":
            from parity_dagster.store.records import nearest_float

            return pd.Series([nearest_float(value) for value in values], dtype="Float64")
        case "boolean":
            return pd.Series(values, dtype="boolean")
        case "json":
            return pd.Series([None if value is None else _decoded(value) for value in values], dtype=object)
        case "texts":
            return pd.Series(values, dtype=object)


def _finite(text: str) -> float | Decimal:
    value = float(text)
    return Decimal(text) if math.isinf(value) else value


def _whole(text: str) -> int | Decimal:
    try:
        return int(text)
    except ValueError:  # more digits than Python turns into an int
        return Decimal(text)


_decode = json.JSONDecoder(parse_float=_finite).decode
_decode_long = json.JSONDecoder(parse_float=_finite, parse_int=_whole).decode


def _decoded(text: str) -> Any:
    try:
        return _decode(text)
    except ValueError:
        return _decode_long(text)
    except RecursionError:
        # a record may nest as deep as Python calls functions by default
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, _DEEPEST))
        try:
            return _decode_long(text)
        finally:
            sys.setrecursionlimit(limit)
