"""`parity export`: files that say what the database says, and that are there whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg.rows import dict_row

from parity_dagster import read_records
from parity_dagster.sample_network import LIKE, POST, PROFILE, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.typed import make_view, registered_views
from parity_dagster_tests.command_line import PROGRAM, call, run, start, variables
from parity_dagster_tests.quick import quick
from parity_dagster_tests.stored_records import DID, EVENT, OTHER, events_view, raw, store, store_events

HARD = [
    "",
    " ",
    "NULL",
    "\\N",
    "\\.",
    '"',
    '""quoted"", and "so on"',
    "a,b;c\td",
    "line\nline\r\nline\rline",
    "\\",
    "\\\\n \\n \\u0041 \\",
    "'=1+1",
    "=1+1",
    "ü é 日本語 🦋 👩‍👩‍👧‍👦 עברית",
    "\u0001\u0008\u000b\u000c\u001f\u007f\u0085\u00a0\u2028\u2029\ufeff\uffff\U0010ffff",
    "x" * 100_000,
]
NUMBERS = '{"big": 123456789012345678901234567890, "exact": 0.1000, "wide": 1e40, "small": -9007199254740993}'


@pytest.fixture
def conn(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    with closing(connect(settings, autocommit=True)) as connection:
        yield connection


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def truth(conn: psycopg.Connection[Any], view: str) -> dict[str, dict[str, Any]]:
    """What the view says, by record key."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return {row["rkey"]: row for row in cursor.execute(f"SELECT * FROM {view}").fetchall()}


def from_csv(path: Path, conn: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """The cells of a CSV file, as PostgreSQL reads them: it tells null from an empty text."""
    titles = path.read_text().partition("\n")[0].split(",")
    columns = ", ".join(f'"{title}" text' for title in titles)
    with conn.transaction(force_rollback=True), conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(f"CREATE TEMP TABLE back ({columns})".encode())
        with cursor.copy("COPY back FROM STDIN (FORMAT csv, HEADER)") as copy:
            copy.write(path.read_bytes())
        return cursor.execute("SELECT * FROM back").fetchall()


def from_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_float=Decimal) for line in path.read_bytes().split(b"\n")[:-1]]


def as_typed(cell: Any, known: Any) -> Any:
    """A cell of a file as a value of the kind that the view has there."""
    if cell is None:
        return None
    if isinstance(known, datetime):
        return datetime.fromisoformat(cell)
    if isinstance(cell, str) and not isinstance(known, str):
        return json.loads(cell, parse_float=Decimal)
    return cell


def test_csv_and_jsonl_of_a_view_say_what_the_view_says(
    settings: Settings, conn: psycopg.Connection[Any], out: Path
) -> None:
    for number, text in enumerate(HARD):
        written = "2024-07-01T12:00:00.123456Z" if number % 2 else "0001-01-01T00:00:00Z"
        facets = {"index": [text, 1, 2.50, None, True]}
        store(
            conn, {"text": text, "createdAt": written, "langs": [text, "de", 1], "tags": [], "facets": facets},
            f"r{number}",
        )  # fmt: skip
    store(conn, {"text": 1, "createdAt": "yesterday", "langs": "x"}, "nothing")
    conn.execute("UPDATE atproto_records SET cid = NULL, active = false WHERE rkey = 'r1'")
    env = variables(settings)
    known = truth(conn, "posts")
    for name, read in (("posts.csv", lambda path: from_csv(path, conn)), ("posts.jsonl", from_jsonl)):
        result = call("export", "posts", f"--{name.partition('.')[2]}", str(out / name), env=env)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(f"Exported {len(HARD) + 1} rows of posts: 1 file, ")
        found = {row["rkey"]: row for row in read(out / name)}
        assert found.keys() == known.keys()
        for rkey, row in known.items():
            assert list(found[rkey]) == list(row)
            assert {column: as_typed(found[rkey][column], value) for column, value in row.items()} == row
    assert sorted(path.name for path in out.iterdir()) == ["posts.csv", "posts.jsonl"]


def test_every_kind_of_column_is_exact(
    settings: Settings, conn: psycopg.Connection[Any], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_events(conn)
    with events_view(settings, tmp_path, monkeypatch) as here:
        env = variables(
            here, PARITY_TYPED_VIEWS=",".join(here.typed_views), PARITY_COLLECTIONS=",".join(here.collections)
        )
        for form in ("csv", "jsonl"):
            assert call("export", "events", f"--{form}", str(out / form), env=env).exit_code == 0
        make_view(conn, next(view for view in registered_views(here) if view.name == "events"))
    known = truth(conn, "events")
    assert known["b"]["price"] == Decimal("1e400")
    for rows in (from_csv(out / "csv", conn), from_jsonl(out / "jsonl")):
        found = {row["rkey"]: row for row in rows}
        for rkey, row in known.items():
            assert {column: as_typed(found[rkey][column], value) for column, value in row.items()} == row
    assert '"price":1.10,' in (out / "jsonl").read_text()


def as_frames_have_it(folder: Path, frame: pd.DataFrame) -> None:
    """Check that Parquet files say what a frame of the same rows says."""
    table = pq.read_table(folder)
    assert table.column_names == list(frame)
    order = {rkey: index for index, rkey in enumerate(frame["rkey"])}
    rows = sorted(table.to_pylist(), key=lambda row: order[row["rkey"]])
    assert len(rows) == len(frame)
    for column in frame:
        values = [row[column] for row in rows]
        known = [None if value is pd.NaT or value is pd.NA else value for value in frame[column]]
        if pa.types.is_string(table.schema.field(column).type) and frame[column].dtype == object:
            values = [None if value is None else json.loads(value) for value in values]
        assert values == known, column


def test_parquet_is_what_frames_are(
    settings: Settings, conn: psycopg.Connection[Any], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_events(conn)
    for number, text in enumerate(HARD):
        written = "2024-07-01T12:00:00.123456Z" if number % 2 else "0001-01-01T00:00:00Z"
        record = {
            "text": text,
            "createdAt": written,
            "langs": [text, "de"],
            "tags": [],
            "facets": [text, 1, {"a": None}],
        }
        store(conn, record, f"r{number}")
    store(conn, {"text": 1, "createdAt": "yesterday", "langs": "x", "facets": None}, "nothing")
    conn.execute("UPDATE atproto_records SET cid = NULL, active = false WHERE rkey = 'r1'")
    with events_view(settings, tmp_path, monkeypatch) as here:
        env = variables(
            here, PARITY_TYPED_VIEWS=",".join(here.typed_views), PARITY_COLLECTIONS=",".join(here.collections)
        )
        for name in ("posts", "events", POST):
            assert call("export", name, "--parquet", str(out / name), env=env).exit_code == 0
            as_frames_have_it(out / name, read_records(name, settings=here))
    utc = pa.timestamp("us", tz="UTC")
    events = pq.read_schema(out / "events" / "part-00000.parquet")
    assert {field.name: field.type for field in events} == {
        **dict.fromkeys(("did", "rkey", "uri", "cid", "raw", "select"), pa.string()),
        **dict.fromkeys(("starts_at", "first_seen_at", "updated_at"), utc),
        "seats": pa.int64(),
        "price": pa.float64(),
        **dict.fromkeys(("is_open", "active"), pa.bool_()),
        "tags": pa.list_(pa.string()),
    }
    (row,) = [row for row in pq.read_table(out / "events").to_pylist() if row["rkey"] == "a"]
    assert (row["seats"], row["price"], row["tags"], row["select"]) == (999_999_999_999_999_999, 1.1, [], "")
    assert row["starts_at"].year == 9999


@pytest.mark.parametrize(("rows", "parts"), quick(1, [(0, [0]), (200_001, [200_000, 1]), (200_000, [200_000])]))
def test_parquet_comes_in_parts_of_a_known_number_of_rows(
    settings: Settings, conn: psycopg.Connection[Any], out: Path, rows: int, parts: list[int]
) -> None:
    conn.execute(
        "INSERT INTO atproto_records (did, collection, rkey, value)"
        " SELECT %s, %s, 'r' || i, '{}' FROM generate_series(1, %s) i",
        (DID, POST, rows),
    )
    done = call("export", "posts", "--parquet", str(out), "--columns", "rkey", "--json", env=variables(settings))
    assert done.exit_code == 0, done.stderr
    files = [out / f"part-{number:05d}.parquet" for number in range(len(parts))]
    assert sorted(out.iterdir()) == files
    assert [pq.read_metadata(path).num_rows for path in files] == parts
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["files"]) == (rows, [str(path) for path in files])
    assert summary["bytes"] == sum(path.stat().st_size for path in files)
    assert len(set(pq.read_table(out)["rkey"].to_pylist())) == rows


@pytest.mark.long
def test_records_longer_than_what_is_held_at_once_are_written(
    settings: Settings, conn: psycopg.Connection[Any], out: Path
) -> None:
    for number in range(3):
        store(conn, {"text": str(number) * 9_000_000, "langs": ["x" * 9_000_000]}, f"r{number}")
    assert call("export", "posts", "--parquet", str(out), env=variables(settings)).exit_code == 0
    assert pq.read_metadata(out / "part-00000.parquet").num_row_groups > 1
    texts = dict(pq.read_table(out, columns=["rkey", "text"]).to_pandas().itertuples(index=False))
    assert texts == {f"r{number}": str(number) * 9_000_000 for number in range(3)}


def test_a_folder_is_made_or_filled_and_a_link_leads_to_it(
    settings: Settings, conn: psycopg.Connection[Any], out: Path
) -> None:
    store(conn, {"text": "Hi"})
    (out / "empty").mkdir(mode=0o700)
    (out / "link").symlink_to("empty")
    (out / "dangling").symlink_to("target")
    before = os.umask(0o027)
    try:
        for name in ("new", "slash/", "link", "dangling"):
            done = call("export", "posts", "--parquet", str(out) + "/" + name, env=variables(settings))
            assert done.exit_code == 0, done.output
    finally:
        os.umask(before)
    assert sorted(path.name for path in out.iterdir()) == ["dangling", "empty", "link", "new", "slash", "target"]
    for name in ("new", "slash", "empty", "target"):
        (part,) = (out / name).iterdir()
        assert part.name == "part-00000.parquet"
        assert part.stat().st_mode & 0o777 == 0o640
    assert (out / "new").stat().st_mode & 0o777 == 0o750
    assert (out / "empty").stat().st_mode & 0o777 == 0o700
    assert (out / "link").is_symlink()


def test_parquet_without_pyarrow_is_one_line_that_says_how_to_get_it(settings: Settings, out: Path) -> None:
    code = "import sys; sys.modules['pyarrow'] = None\n" + PROGRAM[2]
    done = subprocess.run(
        [sys.executable, "-c", code, "export", "posts", "--parquet", str(out / "posts")],
        env=os.environ | variables(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        ["error: Parquet needs pyarrow, which is not installed: pip install 'parity_dagster[parquet]'"],
    )
    assert list(out.iterdir()) == []


def test_a_collection_is_the_records_as_they_are(settings: Settings, conn: psycopg.Connection[Any], out: Path) -> None:
    store(conn, raw(NUMBERS), "numbers")
    for number, text in enumerate(HARD):
        store(conn, {text or "empty": [text, {"a": text}]}, f"r{number}")
    store(conn, {"name": "Meeting"}, collection=EVENT)  # not registered, and held
    env = variables(settings)
    assert call("export", POST, "--jsonl", str(out / "posts.jsonl"), env=env).exit_code == 0
    assert call("export", POST, "--csv", str(out / "posts.csv"), env=env).exit_code == 0
    stored = conn.execute(
        "SELECT rkey, value::text, did, collection, cid, active FROM atproto_records WHERE collection = %s", (POST,)
    ).fetchall()
    lines = (out / "posts.jsonl").read_text().split("\n")[:-1]
    assert sorted(lines) == sorted(
        f'{{"did":"{did}","collection":"{POST}","rkey":"{rkey}","cid":"{cid}","active":true,"value":{value}}}'
        for rkey, value, did, _, cid, _ in stored
    )
    cells = {row["rkey"]: row["value"] for row in from_csv(out / "posts.csv", conn)}
    assert cells == {rkey: value for rkey, value, *_ in stored}
    assert call("export", EVENT, "--jsonl", str(out / "events"), "--columns", "rkey,uri,value", env=env).exit_code == 0
    assert from_jsonl(out / "events") == [
        {"rkey": "one", "uri": f"at://{DID}/{EVENT}/one", "value": {"name": "Meeting"}}
    ]


@pytest.mark.long
def test_whatever_servers_send_is_exported(settings: Settings, out: Path) -> None:
    with run_in_thread(SampleNetwork(seed=13)) as network:
        did = network.network.add_account({POST: 5, LIKE: 5, PROFILE: 1})
        for collection in (POST, LIKE, PROFILE):
            network.network.add_odd(did, collection)
        with ImportService(settings.model_copy(update={"plc_url": network.plc_url}), report=False) as service:
            service.import_user(did)
    env = variables(settings)
    with closing(connect(settings, autocommit=True)) as conn:
        for name, collection in (("posts", POST), ("likes", LIKE), ("profiles", PROFILE)):
            stored: dict[str, str] = dict(
                conn.execute(
                    "SELECT rkey, value::text FROM atproto_records WHERE collection = %s", (collection,)
                ).fetchall()
            )
            assert len(stored) > 10
            for form in ("csv", "jsonl"):
                for what in (name, collection):
                    path = out / f"{what}.{form}"
                    assert call("export", what, f"--{form}", str(path), env=env).exit_code == 0
                    if form == "csv":
                        rows = from_csv(path, conn)
                        if what == collection:
                            assert {row["rkey"]: row["value"] for row in rows} == stored
                        assert len(rows) == len(stored)
                    else:
                        lines = path.read_bytes().split(b"\n")[:-1]
                        assert len(lines) == len(stored)
                        values = {line.partition(b',"value":')[2] for line in lines}
                        if what == collection:
                            assert values == {f"{value}}}".encode() for value in stored.values()}


def test_a_spreadsheet_runs_nothing_and_reads_it_as_utf8(
    settings: Settings, conn: psycopg.Connection[Any], out: Path
) -> None:
    formulas = ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "  =1", "\u2003=1", "＝1", "＋1", "－1", "＠1"]
    harmless = ["a=1", "'=1", "", "(=1)", "1-1", "ü"]
    for number, text in enumerate([*formulas, *harmless]):
        store(conn, {"text": text, "embed": {"$type": text}}, f"-{number}")
    env = variables(settings)
    arguments = ("export", "posts", "--columns", "rkey,text,embed_type,created_at", "--csv")
    assert call(*arguments, str(out / "safe.csv"), "--spreadsheet", env=env).exit_code == 0
    assert call(*arguments, str(out / "exact.csv"), env=env).exit_code == 0
    data = (out / "safe.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbfrkey,text,embed_type,created_at\n")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    for row in rows:
        number = int(row["rkey"].removeprefix("'-"))
        expected = f"'{formulas[number]}" if number < len(formulas) else harmless[number - len(formulas)]
        assert (row["text"], row["embed_type"], row["created_at"]) == (expected, expected, "")
    exact = list(csv.DictReader(io.StringIO((out / "exact.csv").read_bytes().decode(), newline="")))
    assert {row["text"] for row in exact} == {*formulas, *harmless}
    assert {row["rkey"][0] for row in exact} == {"-"}


def test_accounts_columns_and_a_time_narrow_it_down(
    settings: Settings, conn: psycopg.Connection[Any], out: Path
) -> None:
    for did in (DID, OTHER):
        store(conn, {"createdAt": "2023-12-31T23:59:59.999999Z"}, "old", did=did)
        store(conn, {"createdAt": "2024-01-01T01:00:00+01:00"}, "new", did=did)
        store(conn, {}, "missing", did=did)
    conn.execute(
        "INSERT INTO parity_identities (did, handle, pds) VALUES (%s, 'alice.example.com', 'https://x')", (DID,)
    )
    env = variables(settings)

    def rows(*arguments: str) -> list[str]:
        done = call("export", "posts", "--csv", "-", "--columns", "did, rkey", *arguments, env=env)
        assert done.exit_code == 0, done.output
        return sorted(done.stdout.splitlines()[1:])

    assert len(rows()) == 6
    assert rows("--did", DID, "--since", "2024-01-01") == [f"{DID},new"]
    assert rows("--did", DID, "--did", OTHER, "--did", DID) == rows()
    assert rows("--did", "Alice.example.com", "--since", "2024-01-01T00:00:00Z") == [f"{DID},new"]
    done = call("export", "posts", "--csv", "-", "--columns", "rkey", "--columns", "cid,did", env=env)
    assert done.stdout.startswith("rkey,cid,did\n")
    nobody = "did:plc:" + "c" * 24
    done = call("export", "posts", "--csv", "-", "--did", nobody, "--did", DID, "--columns", "rkey", env=env)
    assert (done.exit_code, sorted(done.stdout.splitlines())) == (0, ["missing", "new", "old", "rkey"])
    assert f"Nothing of {nobody} is in it" in done.stderr
    assert DID not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ("posts", "Give one of --parquet, --csv and --jsonl"),
        ("posts --csv x --jsonl y", "Give one of --parquet, --csv and --jsonl"),
        ("posts --parquet x --spreadsheet", "--spreadsheet goes with --csv"),
        ("posts --parquet x --overwrite", "name a folder that is not there yet"),
        ("posts --jsonl x --spreadsheet", "--spreadsheet goes with --csv"),
        ("postz --csv x", "did you mean posts?"),
        ("app.bsky.feed.psot --csv x", "did you mean app.bsky.feed.post?"),
        ("posts --csv x --columns txt", "did you mean text?"),
        ("posts --csv x --columns ,", "there are did, rkey"),
        ("posts --csv x --since yesterday", "2024-07-01T12:00:00Z"),
        ("posts --csv x --since 2024-07-01T00:00:00+16:00", "2024-07-01T12:00:00Z"),
        ("posts --csv /dev/fd/9999", "Bad file descriptor"),
        ("posts --csv x --did did:plc:short", "24 characters"),
        ("posts --csv x --did nobody.example.com", "give its DID"),
        ("posts --csv missing/x", "mkdir -p"),
        ("posts --csv there", "--overwrite"),
        ("posts --csv there/x", "Not a directory"),
        ("posts --csv folder", "is a folder; name a file"),
        ("posts --csv folder --overwrite", "is a folder; name a file"),
        ("posts --csv nothing/", "is a folder; name a file"),
        ("posts --csv loop", "symbolic links"),
        ("posts --csv " + "x" * 300, "name too long"),
        ("posts --csv=", "an empty name"),
        ("postz --parquet x", "did you mean posts?"),
        ("posts --parquet there", "is no folder; name one that is empty"),
        ("posts --parquet full", "is not empty, it holds .hidden; name a folder that is empty or not there yet"),
        ("posts --parquet abandoned", "an export is at work there, or was killed; if none is, remove that"),
        ("posts --parquet missing/x", "mkdir -p"),
        ("posts --parquet there/x", "Not a directory"),
        ("posts --parquet loop", "symbolic links"),
        ("posts --parquet -", "standard output"),
        ("posts --parquet=", "an empty name"),
    ],
)
def test_what_cannot_begin_is_one_line_and_leaves_nothing(
    settings: Settings, out: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, cure: str
) -> None:
    monkeypatch.chdir(out)
    (out / "there").write_text("mine")
    (out / "folder").mkdir()
    for name, inside in (("full", ".hidden"), ("abandoned", ".parity-export-0123456789abcdef")):
        (out / name).mkdir()
        (out / name / inside).touch()
    (out / "loop").symlink_to("loop")
    result = call("export", *arguments.split(), env=variables(settings))
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert cure.lower() in line.lower()
    assert result.stdout == ""
    assert sorted(path.name for path in out.iterdir()) == ["abandoned", "folder", "full", "loop", "there"]
    assert len(list(out.rglob("*"))) == 7
    assert (out / "there").read_text() == "mine"


def test_a_file_is_replaced_if_asked_for_with_its_permissions_and_the_links_to_it(
    settings: Settings, conn: psycopg.Connection[Any], out: Path
) -> None:
    store(conn, {"text": "new"})
    env = variables(settings)
    (out / "old.csv").write_text("old")
    (out / "old.csv").chmod(0o640)
    (out / "link.csv").symlink_to("old.csv")
    (out / "dangling.csv").symlink_to("target.csv")
    before = os.umask(0o027)
    try:
        for name in ("link.csv", "dangling.csv", "plain.csv"):
            done = call("export", "posts", "--csv", str(out / name), "--columns", "text", "--overwrite", env=env)
            assert done.exit_code == 0, done.output
    finally:
        os.umask(before)
    assert {path.name: (path.is_symlink(), path.read_text()) for path in out.iterdir()} == {
        "old.csv": (False, "text\nnew\n"),
        "link.csv": (True, "text\nnew\n"),
        "target.csv": (False, "text\nnew\n"),
        "dangling.csv": (True, "text\nnew\n"),
        "plain.csv": (False, "text\nnew\n"),
    }
    assert (out / "old.csv").stat().st_mode & 0o777 == 0o640
    assert (out / "plain.csv").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "name", quick(3, ["a\nb.csv", b"\xff\xfe.csv", "-x.csv", "näme 日本.csv", "x" * 251 + ".csv", "*?.csv"])
)
def test_a_file_may_have_any_name(
    settings: Settings,
    conn: psycopg.Connection[Any],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str | bytes,
) -> None:
    monkeypatch.chdir(out)
    store(conn, {"text": "Hi"})
    done = call("export", "posts", f"--csv={os.fsdecode(name)}", "--columns", "text", env=variables(settings))
    assert done.exit_code == 0, done.stderr
    assert os.listdir(os.fsencode(out)) == [os.fsencode(name)]  # noqa: PTH208 - names that are no text
    done = call("export", "posts", f"--csv={os.fsdecode(name)}", env=variables(settings))
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)


def test_the_summary_for_programs(settings: Settings, conn: psycopg.Connection[Any], out: Path) -> None:
    store(conn, {"text": "Hi"})
    env = variables(settings)
    path = out / "posts.csv"
    done = call("export", "posts", "--csv", str(path), "--json", env=env)
    summary = json.loads(done.stdout)
    assert 0 < summary.pop("seconds") < 60
    assert summary == {"rows": 1, "files": [str(path)], "bytes": path.stat().st_size}
    done = call("export", "posts", "--jsonl", "-", "--json", env=env)
    assert json.loads(done.stdout)["text"] == "Hi"
    assert json.loads(done.stderr)["files"] == ["-"]


def test_nothing_imported_is_a_file_without_rows(settings: Settings, out: Path) -> None:
    env = variables(settings)
    assert call("export", "likes", "--csv", str(out / "likes.csv"), env=env).exit_code == 0
    assert (out / "likes.csv").read_text() == (
        "did,rkey,uri,cid,created_at,subject,subject_cid,via,active,first_seen_at,updated_at\n"
    )
    assert call("export", LIKE, "--jsonl", str(out / "likes.jsonl"), env=env).exit_code == 0
    assert (out / "likes.jsonl").read_bytes() == b""


WAITING = 7_001
"""The advisory lock that a record with the text of a time `wait` waits for."""


@contextmanager
def paused_export(
    settings: Settings, conn: psycopg.Connection[Any], *arguments: str, cwd: Path
) -> Iterator[subprocess.Popen[str]]:
    """An export that has written much and waits in its middle until the lock WAITING is free."""
    conn.execute(
        "ALTER FUNCTION parity_timestamp RENAME TO parity_timestamp_of;"
        "CREATE FUNCTION parity_timestamp(given text) RETURNS timestamptz LANGUAGE plpgsql STRICT AS $$ BEGIN"
        f" IF given = 'wait' THEN PERFORM pg_advisory_xact_lock({WAITING}); END IF;"
        " RETURN parity_timestamp_of(given); END $$;"
        "INSERT INTO atproto_records (did, collection, rkey, value) SELECT"
        f" '{DID}', '{POST}', 'r' || i, jsonb_build_object('text', repeat('x', 1000)) FROM generate_series(1, 3000) i;"
    )
    store(conn, {"createdAt": "wait"}, "wait")
    store(conn, {"text": "last"}, "zz")
    conn.execute("SELECT pg_advisory_lock(%s)", (WAITING,))
    with start("export", "posts", *arguments, env=variables(settings), cwd=cwd) as process:
        yield process


def wait_until_begun(folder: Path) -> None:
    """Wait until an export has begun to write into a folder."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for path in folder.rglob(".parity-export-*"):
            if any(path.iterdir()) if path.is_dir() else path.stat().st_size:
                return
        time.sleep(0.02)
    raise AssertionError(f"nothing is written into {folder}")


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code", "said"),
    quick(
        1,
        [
            (signal.SIGTERM, 143, "error: stopped by SIGTERM; nothing half-written is left, start it again"),
            (signal.SIGINT, 130, "error: interrupted; nothing half-written is left, start it again"),
            (signal.SIGHUP, 129, "error: stopped by SIGHUP; nothing half-written is left, start it again"),
        ],
    ),
)
@pytest.mark.parametrize("target", quick(1, ["--parquet=empty", "--csv=posts", "--parquet=posts"]))
def test_a_signal_in_the_middle_leaves_nothing(
    settings: Settings,
    conn: psycopg.Connection[Any],
    out: Path,
    target: str,
    number: signal.Signals,
    code: int,
    said: str,
) -> None:
    (out / "empty").mkdir()
    with paused_export(settings, conn, target, cwd=out) as process:
        wait_until_begun(out)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr.splitlines()) == (code, "", [said])
    assert list(out.rglob("*")) == [out / "empty"]


@pytest.mark.parametrize("target", quick(1, ["--csv=posts", "--parquet=empty", "--parquet=posts"]))
def test_who_keeps_pressing_ctrl_c_gets_one_line_and_nothing_is_left(
    settings: Settings, conn: psycopg.Connection[Any], out: Path, target: str
) -> None:
    (out / "empty").mkdir()
    with paused_export(settings, conn, target, cwd=out) as process:
        wait_until_begun(out)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.002)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (130, ""), stderr
    assert stderr.splitlines() == ["error: interrupted; nothing half-written is left, start it again"]
    assert list(out.rglob("*")) == [out / "empty"]


@pytest.mark.parametrize("target", quick(1, ["--csv=posts.csv", "--parquet=empty", "--parquet=new"]))
def test_a_kill_in_the_middle_leaves_nothing_under_the_name(
    settings: Settings, conn: psycopg.Connection[Any], out: Path, target: str
) -> None:
    (out / "posts.csv").write_text("before")
    (out / "empty").mkdir()
    arguments = [target, *(["--overwrite"] if "csv" in target else [])]
    with paused_export(settings, conn, *arguments, cwd=out) as process:
        wait_until_begun(out)
        process.kill()
        process.wait(30)
    assert (out / "posts.csv").read_text() == "before"
    named = [path for path in out.rglob("*") if ".parity-export-" not in str(path)]
    assert sorted(named) == [out / "empty", out / "posts.csv"]
    conn.execute("SELECT pg_advisory_unlock(%s)", (WAITING,))
    again = call("export", "posts", *(part.replace("=", f"={out}/") for part in arguments), env=variables(settings))
    if target == "--parquet=empty":
        assert "an export is at work there, or was killed" in again.stderr
    else:
        assert again.stdout.startswith("Exported 3,002 rows")


@pytest.mark.parametrize(
    ("target", "theirs", "said"),
    quick(
        1,
        [
            ("--csv=posts", "posts", "File exists"),
            ("--parquet=posts", "posts", "Not a directory"),
            ("--parquet=posts", "posts/x", "Directory not empty"),
            ("--parquet=empty", "empty/x", "Directory not empty"),
        ],
    ),
)
def test_what_came_meanwhile_is_not_replaced(
    settings: Settings, conn: psycopg.Connection[Any], out: Path, target: str, theirs: str, said: str
) -> None:
    (out / "empty").mkdir()
    with paused_export(settings, conn, target, cwd=out) as process:
        wait_until_begun(out)
        (out / theirs).parent.mkdir(exist_ok=True)
        (out / theirs).write_text("another's")
        conn.execute("SELECT pg_advisory_unlock(%s)", (WAITING,))
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert stderr.splitlines() == [
        f"error: {target.partition('=')[2]} could not be written: {said};"
        " something came there meanwhile; name another one"
    ]
    assert [path for path in out.rglob("*") if path.is_file()] == [out / theirs]
    assert (out / theirs).read_text() == "another's"
    assert not list(out.rglob(".*"))


def test_an_import_meanwhile_neither_waits_nor_is_seen(
    settings: Settings, conn: psycopg.Connection[Any], out: Path
) -> None:
    with paused_export(settings, conn, "--csv", "posts.csv", "--progress", cwd=out) as process:
        wait_until_begun(out)
        conn.execute("SET lock_timeout = '10s'")
        conn.execute("DELETE FROM atproto_records")
        store(conn, {"text": "later"}, "later")
        conn.execute("SELECT pg_advisory_unlock(%s)", (WAITING,))
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    found = {row["rkey"] for row in from_csv(out / "posts.csv", conn)}
    assert found == {"wait", "zz", *(f"r{number}" for number in range(1, 3001))}
    assert re.fullmatch(r"\d+\.\d s: 3,002 of 3,002 rows, [\d,]+ rows/s\n", stderr)
    assert stdout.startswith("Exported 3,002 rows of posts: 1 file, 3.")


@pytest.mark.long
def test_a_database_that_goes_away_is_one_line_and_leaves_nothing(
    settings: Settings, conn: psycopg.Connection[Any], out: Path
) -> None:
    with paused_export(settings, conn, "--csv", "posts.csv", cwd=out) as process:
        wait_until_begun(out)
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE 'COPY%'"
        )
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    (line,) = stderr.splitlines()
    assert line.startswith("error: PostgreSQL failed: ")
    assert list(out.iterdir()) == []


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n" + PROGRAM[2]


def many(conn: psycopg.Connection[Any]) -> None:
    """Put megabytes into the table that cannot be compressed to one."""
    conn.execute(
        "INSERT INTO atproto_records (did, collection, rkey, value) SELECT %s, %s, 'r' || i, jsonb_build_object('text',"
        " (SELECT string_agg(md5(i || '-' || j), '') FROM generate_series(1, 30) j)) FROM generate_series(1, 5000) i",
        (DID, POST),
    )


@pytest.mark.parametrize("target", ["--parquet=new", "--csv=posts"])
@pytest.mark.long
def test_a_file_that_may_not_grow_is_one_line_and_leaves_nothing(
    settings: Settings, conn: psycopg.Connection[Any], out: Path, target: str
) -> None:
    many(conn)
    (out / "posts").write_text("before")
    arguments = [target, *(["--overwrite"] if "csv" in target else [])]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "export", "posts", *arguments],
        env=os.environ | variables(settings),
        cwd=out,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    name = target.partition("=")[2]
    assert line.startswith(f"error: {name} could not be written: File too large; raise the limit")
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("posts", "before")]


# A file system of a megabyte that is gone with the process; what it holds at the end is printed.
SMALL_DISK = 'mount -t tmpfs -o size=1m tmpfs . && cd "$PWD" && "$@"; code=$?; ls -A; exit $code'
ALONE = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]


@pytest.mark.parametrize("form", quick(1, ["csv", "parquet", "jsonl"]))
def test_a_full_disk_is_one_line_and_leaves_nothing(
    settings: Settings, conn: psycopg.Connection[Any], out: Path, form: str
) -> None:
    if shutil.which("unshare") is None or subprocess.run([*ALONE, "true"], check=False).returncode:
        pytest.skip("this user may not mount anything, also not for itself")
    many(conn)
    done = subprocess.run(
        [*ALONE, "sh", "-c", SMALL_DISK, "sh", *PROGRAM, "export", "posts", f"--{form}", "posts"],
        env=os.environ | variables(settings),
        cwd=out,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: posts could not be written: No space left on device; free some space")


@pytest.mark.long
def test_a_device_that_is_full_is_one_line(settings: Settings, conn: psycopg.Connection[Any]) -> None:
    store(conn, {"text": "Hi"})
    done = call("export", "posts", "--csv", "/dev/full", env=variables(settings))
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "No space left on device" in done.stderr
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [*PROGRAM, "export", "posts", "--csv", "-"],
            env=os.environ | variables(settings),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert (process.returncode, len(process.stderr.splitlines())) == (1, 1)
    assert "No space left on device" in process.stderr
    assert call("export", "posts", "--csv", "/dev/null", env=variables(settings)).exit_code == 0


@pytest.mark.long
def test_a_fifo_gets_the_rows_and_a_reader_that_leaves_is_one_line(
    settings: Settings, conn: psycopg.Connection[Any], out: Path
) -> None:
    many(conn)
    os.mkfifo(out / "fifo")
    read: list[bytes] = []
    with start("export", "posts", "--csv", "fifo", "--columns", "rkey", env=variables(settings), cwd=out) as process:
        thread = threading.Thread(target=lambda: read.append((out / "fifo").read_bytes()))
        thread.start()
        stdout, stderr = process.communicate(timeout=60)
        thread.join(60)
    assert (process.returncode, stderr) == (0, "")
    assert stdout.startswith("Exported 5,000 rows")
    assert read[0].count(b"\n") == 5001
    with start("export", "posts", "--csv", "fifo", env=variables(settings), cwd=out) as process:
        with (out / "fifo").open("rb") as reader:
            reader.read(10)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stderr.splitlines() == [
        "error: fifo could not be written: Broken pipe; whoever read it went away before the end"
    ]
    assert [path.name for path in out.iterdir()] == ["fifo"]


@pytest.mark.parametrize("name", quick(1, ["/dev/stdout", "-"]))
@pytest.mark.long
def test_standard_output_gets_rows_and_nothing_else_whatever_it_is_called(
    settings: Settings, conn: psycopg.Connection[Any], out: Path, name: str
) -> None:
    store(conn, {"text": "Hi"})
    done = run("export", "posts", "--csv", name, "--columns", "text", env=variables(settings))
    assert (done.returncode, done.stdout) == (0, "text\nHi\n")
    assert done.stderr.startswith("Exported 1 row of posts")
    target = out / "redirected"
    with target.open("w") as stream:
        stream.write("before\n")
        stream.flush()
        subprocess.run(
            [*PROGRAM, "export", "posts", "--csv", name, "--columns", "text"],
            env=os.environ | variables(settings),
            stdout=stream,
            check=True,
            timeout=60,
        )
    assert target.read_text() == "before\ntext\nHi\n"
    assert list(out.iterdir()) == [target]


@pytest.mark.long
def test_what_the_shell_has_opened_is_written_to_where_it_stands(
    settings: Settings, conn: psycopg.Connection[Any], out: Path
) -> None:
    store(conn, {"text": "Hi"})
    script = 'echo before >&3; "$@" --csv /dev/fd/3 && echo after >&3; "$@" --csv /dev/stderr 2>> errors'
    done = subprocess.run(
        ["sh", "-c", f"exec 3> three; {script}", "sh", *PROGRAM, "export", "posts", "--columns", "text", "--overwrite"],
        env=os.environ | variables(settings),
        cwd=out,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.count("Exported 1 row of posts") == 2
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "three": "before\ntext\nHi\nafter\n",
        "errors": "text\nHi\n",
    }


def test_a_reader_of_standard_output_that_leaves_is_no_error(settings: Settings, conn: psycopg.Connection[Any]) -> None:
    many(conn)
    with start("export", "posts", "--csv", "-", env=variables(settings)) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("did,rkey")
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.long
def test_who_watches_may_leave_before_the_end(settings: Settings, conn: psycopg.Connection[Any], out: Path) -> None:
    with paused_export(settings, conn, "--csv", "posts.csv", "--progress", cwd=out) as process:
        wait_until_begun(out)
        assert process.stderr is not None
        process.stderr.close()
        conn.execute("SELECT pg_advisory_unlock(%s)", (WAITING,))
        assert process.wait(30) == 0
    assert len(from_csv(out / "posts.csv", conn)) == 3002


def test_a_terminal_shows_a_bar_and_then_the_summary(
    settings: Settings, conn: psycopg.Connection[Any], out: Path
) -> None:
    many(conn)
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "export", "posts", "--csv", "posts.csv"],
        env={**os.environ, **variables(settings), "TERM": "xterm-256color", "COLUMNS": "100"},
        cwd=out,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(main)
    assert process.wait(30) == 0
    assert "━" in shown.decode()
    assert b"/5000" in shown
    assert re.search(rb"Exported 5,000 rows of posts: 1 file, 5\.\d MB, \d\.\d s\r\n$", shown)


@pytest.mark.parametrize(("form", "loaded"), quick(1, [("csv", "[]"), ("parquet", "['numpy', 'pyarrow']")]))
def test_an_export_loads_what_it_uses_and_no_more(settings: Settings, out: Path, form: str, loaded: str) -> None:
    code = (
        "import sys\n"
        "from parity_dagster.cli import main\n"
        "heavy = {'dagster', 'pandas', 'numpy', 'pyarrow', 'httpx', 'aiohttp', 'sqlalchemy', 'alembic', 'rich'}\n"
        "try:\n    main()\n"
        "except SystemExit:\n"
        "    print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "export", "posts", f"--{form}", str(out / "posts")],
        env=os.environ | variables(settings),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == loaded


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_million_records_take_less_than_half_a_gigabyte(
    settings: Settings, conn: psycopg.Connection[Any], out: Path
) -> None:
    conn.execute(
        "INSERT INTO atproto_records (did, collection, rkey, cid, value) SELECT"
        " 'did:plc:' || lpad((i %% 1000)::text, 24, 'a'), %s, 'r' || i, 'bafy', jsonb_build_object("
        " 'text', (SELECT string_agg(md5(i || '-' || j), ' ') FROM generate_series(1, 9) j),"
        " 'langs', jsonb_build_array('en'), 'createdAt',"
        " to_char(timestamp '2024-01-01' + i * interval '9.87 s', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'))"
        " FROM generate_series(1, 1000000) i",
        (POST,),
    )
    for form in ("csv", "jsonl", "parquet"):
        with start("export", "posts", f"--{form}", str(out / form), "--json", env=variables(settings)) as process:
            most = 0
            known = psutil.Process(process.pid)
            while process.poll() is None:
                # by the end of a process its peak is not its own: it begins with that of its parent
                with suppress(psutil.Error):
                    most = max(most, known.memory_info().rss)
                time.sleep(0.05)
            stdout, stderr = process.communicate()
        assert process.returncode == 0, stderr
        assert json.loads(stdout)["rows"] == 1_000_000
        assert 10_000_000 < most < 500_000_000, form
        print(f"{form}: {most // 1_000_000} MB")
