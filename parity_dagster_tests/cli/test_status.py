"""`parity import-status` and `parity failed-records`: every row, in a form for people and one for programs."""

import json
import os
import pty
import struct
import subprocess
import sys
from fcntl import ioctl
from termios import TIOCSWINSZ

import psycopg
import pytest

from parity_dagster_tests.command_line import PROGRAM, call, run, start, variables
from parity_dagster_tests.quick import quick

ALICE = "did:plc:z72i7hdynmk6r22z27h6tvur"
BOB = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
POST = "app.bsky.feed.post"
LIKE = "app.bsky.feed.like"
CID = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
MISSION_COLUMNS = {
    "id", "did", "collection", "status", "cursor", "records_synced", "records_skipped", "records_failed",
    "started_at", "completed_at", "error", "created_at", "updated_at",
}  # fmt: skip


@pytest.fixture
def env(settings):
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute(
            f"INSERT INTO {settings.state_table} (did, collection, status, records_synced, records_skipped,"
            " records_failed, error, error_code, completed_at, cursor) VALUES"
            " (%(alice)s, %(post)s, 'completed', 1234567, 8, 9, NULL, NULL, now(), NULL),"
            " (%(alice)s, %(like)s, 'failed', 10, 0, 0, %(error)s, 'server_error', NULL, 'abc'),"
            " (%(bob)s, %(post)s, 'pending', 0, 0, 0, NULL, NULL, NULL, NULL),"
            " (%(bob)s, %(like)s, 'in_progress', 100, 0, 0, NULL, NULL, NULL, 'abc')",
            {"alice": ALICE, "bob": BOB, "post": POST, "like": LIKE, "error": "503 from \x1b[31mhost\nagain"},
        )
        connection.execute(
            "INSERT INTO parity_identities (did, handle, pds) VALUES (%s, 'alice.example.com', 'https://x')", (ALICE,)
        )
        connection.execute(
            "INSERT INTO parity_failed_records (did, collection, rkey, fingerprint, reason, detail, body, walk)"
            " VALUES (%(did)s, %(nsid)s, 'one', 'f1', 'nul', 'holds U+0000', %(text)s, 1),"
            " (%(did)s, %(nsid)s, NULL, 'f2', 'not_utf8', 'byte 3', %(bytes)s, 1)",
            {"did": ALICE, "nsid": POST, "text": b'{"a":"\\u0000"}', "bytes": b"\xff\x00\xfe"},
        )
    return variables(settings)


def rows(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines() if line.startswith("did:")]


def test_collections_that_accounts_have_no_row_for_are_named_once_for_all(env):
    everything = call("import-status", env=env | {"PARITY_COLLECTIONS": f"{POST},app.bsky.graph.follow,{LIKE}"})
    assert "2 accounts have no row for app.bsky.graph.follow; `parity import --known`" in everything.output
    assert "no row" not in call("import-status", env=env | {"PARITY_COLLECTIONS": f"{POST},{LIKE}"}).output
    with psycopg.connect(env["PARITY_DATABASE_URL"]) as connection:
        connection.execute("DELETE FROM parity_import_states WHERE did = %s AND collection = %s", (BOB, LIKE))
    several = call("import-status", env=env | {"PARITY_COLLECTIONS": f"{LIKE},{POST},app.bsky.graph.follow"})
    assert f"1 account has no row for {LIKE}, 2 for app.bsky.graph.follow;" in several.output
    for narrow in (ALICE, "--failed"):
        assert "no row" not in call("import-status", narrow, env=env).output


def test_a_pipe_gets_one_uncut_line_per_import_and_a_summary_line(env):
    result = call("import-status", env=env)
    assert result.exit_code == 0
    assert [row[:4] for row in rows(result.output)] == [
        [BOB, LIKE, "in_progress", "100"],
        [BOB, POST, "pending", "0"],
        [ALICE, LIKE, "failed", "10"],
        [ALICE, POST, "completed", "1,234,567"],
    ]
    assert "503 from \\x1b[31mhost again" in result.output
    assert (
        "4 imports of 2 accounts: 1 pending, 1 in_progress, 1 completed, 1 failed; 1,234,677 records,"
        " 9 failed records" in result.output
    )
    assert "\x1b" not in result.output


@pytest.mark.parametrize(
    ("flags", "statuses"),
    [
        (["--pending"], {"pending", "in_progress"}),
        (["--failed"], {"failed"}),
        (["--completed"], {"completed"}),
        (["--completed", "--failed"], {"completed", "failed"}),
        ([BOB], {"pending", "in_progress"}),
        (["@Alice.example.com"], {"failed", "completed"}),
        ([ALICE, "--failed"], {"failed"}),
    ],
)
def test_flags_and_an_account_choose_the_rows(env, flags, statuses):
    assert {row[2] for row in rows(call("import-status", *flags, env=env).output)} == statuses


def test_json_is_a_list_of_objects_with_the_table_s_columns_and_iso_times(env):
    result = call("import-status", "--json", env=env)
    listed = json.loads(result.output)
    assert len(listed) == 4
    assert set(listed[0]) >= MISSION_COLUMNS
    done = next(row for row in listed if row["status"] == "completed")
    assert done["records_synced"] == 1234567
    assert done["completed_at"].endswith("+00:00")
    assert "T" in done["completed_at"]
    assert done["cursor"] is None


def test_nothing_to_show_is_said_and_is_an_empty_list_in_json(settings):
    env = variables(settings)
    assert "parity import DID" in call("import-status", env=env).output
    assert json.loads(call("import-status", "--json", env=env).output) == []
    assert call("failed-records", env=env).output == "No failed records.\n"


def test_an_unknown_handle_says_to_give_the_did(env):
    result = call("import-status", "nobody.example.com", env=env)
    assert result.exit_code == 2
    assert "give its DID" in result.stderr


@pytest.mark.parametrize(
    "command", [("reset",), ("import-status",), ("failed-records",), ("failed-records", "--retry")], ids=" ".join
)
def test_a_handle_that_several_accounts_claim_is_nobodys(env, settings, command):
    """Anybody's DID document may claim alice's handle, also later than hers."""
    name, *options = command
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO parity_identities (did, handle, pds, resolved_at)"
            " VALUES (%s, 'alice.example.com', 'https://x', now() + interval '1 s')",
            (BOB,),
        )
        before = connection.execute(f"SELECT did, collection FROM {settings.state_table}").fetchall()
        result = call(name, "alice.example.com", *options, env=env)
        assert result.exit_code == 2, result.output
        assert f"Several accounts claim the handle alice.example.com: {ALICE}, {BOB}" in result.stderr
        assert result.stdout == ""
        assert connection.execute(f"SELECT did, collection FROM {settings.state_table}").fetchall() == before
        assert call(name, ALICE, *options, env=env).exit_code != 2


@pytest.mark.parametrize("width", quick(1, [80, 160, 40]))
def test_a_terminal_of_any_width_shows_whole_dids_coloured_states_and_errors(env, width):
    main, terminal = pty.openpty()
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    drop = {"NO_COLOR", "COLUMNS", "LINES", "PYTEST_CURRENT_TEST"}
    plain = {name: value for name, value in os.environ.items() if name not in drop}
    process = subprocess.Popen(
        [*PROGRAM, "import-status"], stdout=terminal, env={**plain, **env, "TERM": "xterm-256color"}
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
    text = shown.decode()
    assert "\x1b[32mcompleted" in text
    assert "503 from \\x1b[31mhost again" in " ".join(text.split())
    assert ALICE in text
    assert BOB in text
    assert "4 imports of 2 accounts" in text


@pytest.mark.long
def test_a_hundred_thousand_rows_stream_in_bounded_memory(settings):
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute(
            f"INSERT INTO {settings.state_table} (did, collection, status)"
            " SELECT 'did:plc:' || lpad(n::text, 24, 'a'), %s, 'completed' FROM generate_series(1, 100000) n",
            (POST,),
        )
    code = (
        "import sys, psutil\n"
        "from parity_dagster.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n"
        "    print(psutil.Process().memory_info().rss // 1_000_000, file=sys.stderr)"
    )
    for arguments in (["import-status"], ["import-status", "--json"]):
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, **variables(settings)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert result.stdout.count("did:plc:") == 100_000
        assert int(result.stderr.splitlines()[-1]) < 100  # megabytes
    assert len(json.loads(result.stdout)) == 100_000


@pytest.mark.long
def test_a_reader_that_leaves_early_ends_the_listing_quietly(settings):
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute(
            f"INSERT INTO {settings.state_table} (did, collection)"
            " SELECT 'did:plc:' || n, %s FROM generate_series(1, 20000) n",
            (POST,),
        )
    with start("import-status", env=variables(settings)) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("did ")
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_failed_records_are_listed_with_their_reason_and_in_json_with_every_byte(env):
    result = call("failed-records", ALICE, env=env)
    assert result.exit_code == 0
    assert "nul" in result.output
    assert "holds U+0000" in result.output
    assert "2 failed records of did:plc:" in result.output
    assert call("failed-records", BOB, env=env).output == f"No failed records of {BOB}.\n"
    first, second = json.loads(call("failed-records", "--json", env=env).output)
    assert first["body"] == '{"a":"\\u0000"}'
    assert first["reason"] == "nul"
    assert second["body"] is None
    assert second["body_base64"] == "/wD+"


def test_retry_stores_what_can_be_stored_by_now_and_fails_while_something_is_left(env, settings):
    body = json.dumps({
        "uri": f"at://{ALICE}/{POST}/3jzfcijpj2z2a", "cid": CID, "value": {"$type": POST, "text": "sound"}
    }).encode()  # fmt: skip
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute(
            "INSERT INTO parity_failed_records (did, collection, rkey, fingerprint, reason, detail, body, walk)"
            " VALUES (%s, %s, '3jzfcijpj2z2a', 'f3', 'too_deep', 'an older rule', %s, 1)",
            (ALICE, POST, body),
        )
    result = call("failed-records", "--retry", env=env)
    assert result.exit_code == 1
    assert "Tried 3 records again: 1 stored." in result.output
    assert "2 failed records" in result.output
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        assert connection.execute("SELECT rkey, cid FROM atproto_records").fetchall() == [("3jzfcijpj2z2a", CID)]
        connection.execute("DELETE FROM parity_failed_records")
    assert call("failed-records", "--retry", env=env).exit_code == 0


def test_reset_forgets_one_collection_or_all_and_says_how_many(env):
    assert "1 import of" in call("reset", ALICE, "--collection", POST, env=env).output
    assert len(rows(call("import-status", ALICE, env=env).output)) == 1
    assert "1 import of" in call("reset", "alice.example.com", env=env).output
    assert rows(call("import-status", ALICE, env=env).output) == []
    assert "no import" in call("reset", ALICE, env=env).output
    assert len(rows(call("import-status", env=env).output)) == 2


def test_an_error_that_only_an_earlier_version_knew_is_chosen_as_the_summary_names_it(env, settings):
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute("UPDATE parity_import_states SET error_code = NULL")
    assert "Failed: unknown 1" in call("import-status", "--summary", env=env).output
    assert "1 import forgotten" in call("reset", "--error", "unknown", env=env).output


def test_reset_takes_many_accounts_a_file_errors_and_hosts(env, tmp_path):
    assert "no import to forget" in call("reset", "--error", "cursor_loop", env=env).output
    assert "1 import forgotten" in call("reset", "--error", "server_error", "--pds", "x", env=env).output
    assert "no import to forget" in call("reset", "--failed", env=env).output
    assert "1 import of" in call("reset", "--pds", "https://x/", "alice.example.com", env=env).output
    (tmp_path / "dids.txt").write_text(f"{ALICE}\n{BOB}\n")
    narrowed = call("reset", "--file", str(tmp_path / "dids.txt"), "--collection", POST, env=env)
    assert "1 import forgotten" in narrowed.output
    assert len(rows(call("import-status", env=env).output)) == 1
    assert "1 import forgotten" in call("reset", ALICE, BOB, env=env).output
    assert call("reset", env=env).exit_code == 2
    assert call("reset", "nobody.example.com", ALICE, env=env).exit_code == 2


def test_the_installed_command_works_from_any_folder(env, tmp_path):
    result = run("import-status", env=env, cwd=tmp_path)
    assert result.returncode == 0
    assert len(rows(result.stdout)) == 4
