"""Rows as Parquet files in a folder; pyarrow is loaded when the first one is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity_dagster.errors import SettingsError
from parity_dagster.exporting.destinations import closing
from parity_dagster.store.records import nearest_float
from parity_dagster.store.typed.columns import Kind

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Row = tuple[Any, ...]

_ROWS_PER_FILE = 200_000
# What is held as Python's objects, and then as columns until they are written: rows, or fewer if they are long.
_ROWS_AT_ONCE = 10_000
_CHARACTERS_AT_ONCE = 2**24
_BYTES_PER_ROW_GROUP = 2**25


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a folder."""

    name: str
    rows: int
    size: int
    """Bytes."""


def check_pyarrow() -> None:
    """Make sure that Parquet can be written.

    Raises:
        SettingsError: pyarrow is not installed, or cannot be loaded.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ModuleNotFoundError:
        raise SettingsError(
            "Parquet needs pyarrow, which is not installed: pip install 'parity_dagster[parquet]'"
        ) from None
    except ImportError as exc:
        raise SettingsError(f"pyarrow cannot be loaded ({exc}); pip install --force-reinstall pyarrow") from exc


def write_parts(
    rows: Iterator[Row], kinds: Mapping[str, Kind], folder: Path, advance: Callable[[int], None]
) -> Iterator[Part]:
    """Write rows into files of 200,000 each; no rows are one file without any.

    Args:
        rows: as `stream_rows` gives them.
        kinds: of their columns.
        advance: called with how many rows more were taken.

    Yields:
        Each file when it is complete.
    """
    import pyarrow as pa

    schema = pa.schema([(name, _type(kind)) for name, kind in kinds.items()])
    first = next(rows, None)
    number = 0
    while first is not None or not number:
        path = folder / f"part-{number:05d}.parquet"
        these = () if first is None else chain((first,), islice(rows, _ROWS_PER_FILE - 1))
        count = 0
        with _new_file(path, schema) as writer:
            for table in _tables(these, kinds, schema, advance):
                writer.write_table(table, row_group_size=_ROWS_PER_FILE)
                count += table.num_rows
        yield Part(path.name, count, path.stat().st_size)
        first = next(rows, None)
        number += 1


@contextmanager
def _new_file(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    import pyarrow.parquet as pq

    stream = path.open("xb")
    with closing(stream):
        writer = pq.ParquetWriter(stream, schema, compression="zstd")
        try:
            yield writer
        except BaseException:
            # otherwise it tries to write its end when it is collected, and complains that it cannot
            with suppress(Exception):
                writer.close()
            raise
        writer.close()
        stream.flush()
        os.fsync(stream.fileno())


def _tables(
    rows: Iterable[Row], kinds: Mapping[str, Kind], schema: pa.Schema, advance: Callable[[int], None]
) -> Iterator[pa.Table]:
    """Rows as columns, in pieces that are not too large to be held."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    for batch in _batches(rows, kinds):
        columns = [_array(kind, values) for kind, values in zip(kinds.values(), zip(*batch, strict=True), strict=True)]
        held.append(pa.RecordBatch.from_arrays(columns, schema=schema))
        advance(len(batch))
        if sum(each.nbytes for each in held) >= _BYTES_PER_ROW_GROUP:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _batches(rows: Iterable[Row], kinds: Mapping[str, Kind]) -> Iterator[list[Row]]:
    long = [index for index, kind in enumerate(kinds.values()) if kind in ("text", "json", "texts")]
    batch: list[Row] = []
    characters = 0
    for row in rows:
        batch.append(row)
        for index in long:
            value = row[index]
            if value is not None:
                characters += len(value) if isinstance(value, str) else sum(map(len, value))
        if len(batch) == _ROWS_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _type(kind: Kind) -> pa.DataType:
    """The type that comes back as the dtype that frames have."""
    import pyarrow as pa

    match kind:
        case "timestamp":
            return pa.timestamp("us", tz="UTC")
        case "text" | "json":
            return pa.string()
        case "texts":
            return pa.list_(pa.string())
        case "integer":
            return pa.int64()
        case "number":
            return pa.float64()
        case "boolean":
            return pa.bool_()


def _array(kind: Kind, values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array([nearest_float(value) for value in values] if kind == "number" else values, _type(kind))
