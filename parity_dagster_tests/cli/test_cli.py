"""Every command: its help, its exit codes, and one line on stderr whatever goes wrong."""

import os
import re
import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from parity_dagster.cli import parity
from parity_dagster.cli.exits import ParityGroup, Stopped, say_when_stopped, signals_interrupt
from parity_dagster_tests.command_line import PROGRAM, call, run, start, variables

COMMANDS = [*sorted(parity.commands), "directory sync"]
UNREACHABLE = "postgresql://parity:s3cret-word@127.0.0.1:1/parity"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_examples_and_exit_codes(command):
    result = call(*command.split(), "--help")
    assert result.exit_code == 0
    assert re.search(rf"Examples:\n\s+parity {command}", result.output)
    assert "Exit code: " in result.output
    assert max(map(len, result.output.splitlines())) <= 80


@pytest.mark.parametrize(
    "words",
    [
        "import did:plc:z72i7hdynmk6r22z27h6tvur --collection app.bsky.feed.post --progress",
        "import --file dids.txt --queue",
        "import --resume",
        "import-status did:plc:z72i7hdynmk6r22z27h6tvur",
        "import-status --pending",
        "import-status --failed",
        "import-status --completed",
        "migrate",
    ],
)
def test_every_command_of_the_mission_exists_by_its_words(words, tmp_path):
    (tmp_path / "dids.txt").write_text("did:plc:z72i7hdynmk6r22z27h6tvur\n")
    arguments = [str(tmp_path / word) if word == "dids.txt" else word for word in words.split()]
    result = call(*arguments, env={"PARITY_DATABASE_URL": UNREACHABLE})
    # understood, and only the database is missing
    assert result.exit_code == 1
    assert "127.0.0.1:1" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "env", "code", "cure"),
    [
        ("import", {}, 2, "Give an account, --file, --failed"),
        ("import did:plc:short", {}, 2, "24 characters"),
        ("import not_an_account", {}, 2, "give did:plc:"),
        ("import alice.example.com --collection nonsense", {}, 2, "app.bsky.feed.post"),
        ("import --file missing.txt", {}, 2, "does not exist"),
        ("import --resume --refresh", {}, 2, "exclude each other"),
        ("import alice.example.com", {"PARITY_PAGE_SIZE": "0"}, 2, "PARITY_PAGE_SIZE"),
        ("import alice.example.com", {"PARITY_PAGE_SIZE": "101"}, 2, "less than or equal to 100"),
        ("import did:plc:z72i7hdynmk6r22z27h6tvur", {}, 1, "PARITY_DATABASE_URL"),
        ("import-status", {}, 1, "Check that the server runs"),
        ("import-status did:plc:z", {}, 1, "Check that the server runs"),
        ("import-status", {"PARITY_STATE_TABLE": "bad-name"}, 2, "PARITY_STATE_TABLE"),
        ("failed-records", {}, 1, "Check that the server runs"),
        ("reset", {}, 2, "Give a DID"),
        ("reset did:plc:z72i7hdynmk6r22z27h6tvur --collection x", {}, 2, "NSID"),
        ("migrate", {"PARITY_DATABASE_URL": "mysql://x"}, 2, "postgresql://"),
        ("dev --port 70000", {}, 2, "65535"),
        ("export posts --csv -", {}, 1, "Check that the server runs"),
        ("imprt", {}, 2, "Did you mean 'import'"),
        ("--nonsense", {}, 2, "parity --help"),
    ],
)
def test_wrong_input_is_one_line_on_stderr_that_names_the_cure(arguments, env, code, cure):
    result = call(*arguments.split(), env={"PARITY_DATABASE_URL": UNREACHABLE, **env})
    lines = result.stderr.splitlines()
    assert result.exit_code == code, result.output
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert cure in lines[0]
    assert "s3cret" not in result.output
    assert "Traceback" not in result.output


def test_a_database_without_tables_is_told_to_migrate_and_then_works(empty_database_url):
    env = {"PARITY_DATABASE_URL": empty_database_url}
    result = call("import-status", env=env)
    assert result.exit_code == 1
    assert "parity migrate" in result.stderr
    assert call("migrate", env=env).exit_code == 0
    assert call("migrate", env=env).exit_code == 0
    assert call("import-status", env=env).exit_code == 0


def test_no_arguments_show_the_help_and_are_wrong_usage():
    result = call()
    assert result.exit_code == 2
    assert "First steps" in result.output


def test_an_unexpected_exception_is_one_line_and_its_traceback_one_variable_away():
    @click.group(cls=ParityGroup)
    def group():
        pass

    @group.command()
    def explode():
        raise RuntimeError("first\nsecond \x1b[31m")

    quiet = CliRunner().invoke(group, ["explode"])
    assert quiet.exit_code == 1
    assert quiet.stderr.splitlines() == [
        "error: RuntimeError: first second \\x1b[31m (unexpected; PARITY_DEBUG=1 shows where)"
    ]
    loud = CliRunner().invoke(group, ["explode"], env={"PARITY_DEBUG": "1"})
    assert "Traceback" in loud.stderr


def test_help_answers_at_once_and_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from parity_dagster.cli import parity\n"
        "heavy = {'dagster', 'httpx', 'aiohttp', 'pydantic', 'psycopg', 'sqlalchemy', 'rich', 'pandas', 'anyio',"
        " 'pyarrow', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
    assert _processor_seconds([*PROGRAM, "--help"]) < 0.4


def test_import_status_never_loads_dagster_or_the_network_and_takes_under_a_second_of_its_own(settings):
    code = (
        "import sys\n"
        "from parity_dagster.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n"
        "    print(sorted({'dagster', 'httpx', 'aiohttp', 'sqlalchemy', 'alembic'} & set(sys.modules)))"
    )
    env = {**os.environ, **variables(settings)}
    command = [sys.executable, "-c", code, "import-status"]
    loaded = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert loaded.stdout.splitlines()[-1] == "[]"
    assert _processor_seconds([*PROGRAM, "import-status"], env) < 1.0


def _processor_seconds(command: list[str], env: dict[str, str] | None = None) -> float:
    """The least of three runs: the machine may be busy with something else."""
    taken = []
    for _ in range(3):
        before = os.times()
        subprocess.run(command, env=env, capture_output=True, check=True)
        after = os.times()
        taken.append(after.children_user - before.children_user + after.children_system - before.children_system)
    return min(taken)


def test_a_reader_that_goes_away_is_no_error(settings):
    with start("sample-network", "--help", env=variables(settings)) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(20) in (0, 141)
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_the_version_is_the_package_s():
    result = run("--version")
    assert re.fullmatch(r"parity_dagster \d+\.\d+\.\d+\S*", result.stdout.strip())


def test_ctrl_c_ends_a_command_with_a_sentence_and_their_exit_code():
    @click.group(cls=ParityGroup)
    def group():
        pass

    @group.command()
    def wait():
        raise KeyboardInterrupt

    @group.command()
    def work():
        say_when_stopped("start it again")
        raise KeyboardInterrupt

    for command, sentence in (("wait", "error: interrupted\n"), ("work", "error: interrupted; start it again\n")):
        result = CliRunner().invoke(group, [command])
        assert (result.exit_code, result.stderr) == (130, sentence)


@pytest.mark.parametrize("step", range(1, 8))
def test_a_signal_while_another_is_being_handled_leaves_no_handler_that_raises(step):
    """A second one that raised after the command's own handlers had run would end the process without a word."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    left = step

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_name == "restore" and left:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGINT)
        return trace

    tracing = sys.gettrace()
    try:
        with pytest.raises(Stopped), signals_interrupt(signal.SIG_IGN):  # noqa: PT012 - two signals
            sys.settrace(trace)
            os.kill(os.getpid(), signal.SIGINT)
        assert not left
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        sys.settrace(tracing)
        for number, handler in before.items():
            signal.signal(number, handler)
