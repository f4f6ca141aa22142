"""What stands in deploy/ names what exists, says nothing twice in two ways, and is what its own tools take.

No container is started here. The tools are asked where they are installed (the extra `deploy`, systemd); the commands
of compose.yaml are started as processes by the test of Celery.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from parity_dagster.cli import parity
from parity_dagster.dagster_instance.home import Launcher, dagster_yaml
from parity_dagster.settings import Settings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
PROGRAMS = {"parity", "celery", "dagster-daemon", "dagster-webserver"}
DAGSTERS = {"DAGSTER_HOME"}


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def values() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "helm-values.yaml").read_text()))


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"NOT CHECKED: {name} is not installed")
    return found


def commands() -> Iterator[list[str]]:
    """Every command line that a file of deploy/ starts."""
    for service in compose()["services"].values():
        yield from (found for found in [service.get("command", [])] if found and found[0] in PROGRAMS)
        check = [str(part) for part in service.get("healthcheck", {}).get("test", [])[1:]]
        if check and check[0].split()[0] in PROGRAMS:
            yield " ".join(check).split()
    for unit in UNITS:
        (line,) = re.findall(r"^ExecStart=/opt/parity/bin/(.*)$", unit.read_text(), re.MULTILINE)
        yield line.split()
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if line.startswith("CMD ["):
            yield yaml.safe_load(line.removeprefix("CMD "))
        elif line.startswith("RUN parity"):
            yield line.split()[1:]
    for deployment in values()["dagster-user-deployments"]["deployments"]:
        yield from (container["command"] for container in deployment["initContainers"])


def test_every_variable_that_is_named_exists() -> None:
    ours = {f"PARITY_{name.upper()}" for name in Settings.model_fields}
    engines = set(re.findall(r"\benv: (\w+)", "".join(dagster_yaml(launcher) for launcher in Launcher)))
    own = {"PARITY_VERSION"}  # of the image, in compose.yaml alone
    for path in FILES:
        named = set(re.findall(r"\b(?:PARITY|DAGSTER)_[A-Z_]*[A-Z]\b", path.read_text()))
        assert named <= ours | engines | own | DAGSTERS, path


def test_every_command_that_is_named_exists() -> None:
    found = list(commands())
    assert {command[0] for command in found} == PROGRAMS
    for command in found:
        if command[0] == "parity":
            assert command[1] in parity.commands
            options = {flag for option in parity.commands[command[1]].params for flag in option.opts}
            assert {part for part in command if part.startswith("--")} <= options
        elif command[0] == "celery":
            module = command[command.index("-A") + 1]
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


@pytest.mark.long
@pytest.mark.parametrize(
    "command", [["dagster-daemon", "run"], ["dagster-daemon", "liveness-check"], ["dagster-webserver"]]
)
def test_dagster_knows_the_options_of_its_commands(command: list[str]) -> None:
    said = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    for found in commands():
        if found[: len(command)] == command:
            for option in (part for part in found if part.startswith("-")):
                assert re.search(rf"(?<!\S){option}\b", said), (found, option)


def test_secrets_are_named_and_not_written() -> None:
    for path in FILES:
        for name, given in re.findall(r"^\s*(\w*(?:PASSWORD|SECRET)\w*)[:=] *(\S*)", path.read_text(), re.MULTILINE):
            assert given in ("", "PASSWORD") or given.startswith("${"), (path, name)
        for password in re.findall(r"://[^\s:/]*:([^\s@]+)@", path.read_text()):
            assert password == "PASSWORD" or password.startswith("${"), path


def test_the_password_of_redis_is_on_no_command_line_and_is_asked_for(tmp_path: Path) -> None:
    shell, option, script = compose()["services"]["redis"]["command"]
    program, _, given = script.replace("$$", "$").partition("\n")
    assert "PASSWORD" not in program
    folder = Path(tempfile.mkdtemp(prefix="redis"))  # a socket's path has to be short
    script = f"{program.replace('redis-server', tool('redis-server'))}\nport 0\nunixsocket {folder}/s\n{given}"
    with subprocess.Popen([shell, option, script], env={"REDIS_PASSWORD": "one2three"}, cwd=tmp_path) as started:
        try:
            client = [tool("redis-cli"), "-s", f"{folder}/s", "ping"]
            deadline = time.monotonic() + 20
            while not (folder / "s").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            asked = subprocess.run(client, capture_output=True, text=True)
            assert "NOAUTH" in asked.stdout + asked.stderr
            known = subprocess.run(client, env={"REDISCLI_AUTH": "one2three"}, capture_output=True, text=True)
            assert known.stdout == "PONG\n"
        finally:
            started.terminate()
            started.wait(20)
            shutil.rmtree(folder)


def test_what_holds_passwords_is_not_committed() -> None:
    assert {"/deploy/.env", "/deploy/htpasswd"} <= set((ROOT / ".gitignore").read_text().splitlines())


def test_images_are_pinned_and_nobody_is_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    images = [line.split()[1] for line in lines if line.startswith("FROM ")]
    images += [
        service["image"] for service in compose()["services"].values() if not service["image"].startswith("parity_")
    ]
    for image in images:
        assert re.search(r":\d+\.\d+", image), image
    assert "USER 10001:10001" in lines
    assert lines.index("USER 10001:10001") < max(number for number, line in enumerate(lines) if line.startswith("CMD"))
    for name, service in compose()["services"].items():
        if service["image"].startswith("parity_"):
            assert service["cap_drop"] == ["ALL"], name
    for unit in UNITS:
        assert re.search(r"^User=parity$", unit.read_text(), re.MULTILINE)


def test_every_service_that_stays_has_a_health_check_and_only_the_proxy_a_port() -> None:
    services = compose()["services"]
    assert set(services) == {"postgres", "redis", "migrate", "daemon", "webserver", "worker", "proxy"}
    lines = (DEPLOY / "Dockerfile").read_text()
    for name, service in services.items():
        if name == "webserver":  # the image's own
            assert "HEALTHCHECK" in lines
        elif name != "migrate":
            assert service["healthcheck"]["test"], name
        assert ("ports" in service) == (name == "proxy"), name
    assert services["proxy"]["ports"][0].startswith("${LISTEN:-127.0.0.1:")


def test_the_image_holds_what_it_is_made_of() -> None:
    """What the Dockerfile copies is let through by its dockerignore, and is there."""
    copied = [
        name
        for line in (DEPLOY / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    ]
    let_through = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in let_through, name
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["force-include"]) <= set(copied)


def test_the_chart_is_told_what_dagster_yaml_says() -> None:
    """The chart writes a dagster.yaml of its own from its values, so they stand a second time here."""
    ours, chart = yaml.safe_load(dagster_yaml(Launcher.K8S)), values()

    def snake(name: str) -> str:
        return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name)

    daemon = chart["dagsterDaemon"]
    monitoring = {snake(name): value for name, value in daemon["runMonitoring"].items()}
    assert monitoring.pop("max_resume_run_attempts") == 0
    assert monitoring == ours["run_monitoring"]
    assert daemon["runRetries"] == ours["run_retries"]
    assert {snake(name): value for name, value in daemon["sensors"].items()} == ours["sensors"]
    queued = dict(daemon["runCoordinator"]["config"]["queuedRunCoordinator"])
    runs = ours["concurrency"]["runs"]
    assert queued.pop("maxConcurrentRuns") == runs["max_concurrent_runs"]
    assert queued.pop("tagConcurrencyLimits") == runs["tag_concurrency_limits"]
    assert {snake(name): value for name, value in queued.items()} == ours["run_coordinator"]["config"]
    launcher = chart["runLauncher"]["config"]["k8sRunLauncher"]
    assert launcher["resources"] == ours["run_launcher"]["config"]["resources"]
    assert chart["telemetry"] == ours["telemetry"]
    assert chart["retention"]["sensor"]["purgeAfterDays"] == ours["retention"]["sensor"]["purge_after_days"]


# Their own tools.


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([tool("hadolint"), DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_compose_takes_its_file_and_asks_for_passwords() -> None:
    command = [tool("docker-compose"), "-f", str(DEPLOY / "compose.yaml"), "config", "--format", "json"]
    environment = {"PATH": "/usr/bin:/bin", "POSTGRES_PASSWORD": "one", "REDIS_PASSWORD": "two", "WORKERS": "5"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout, done.stderr  # its exit code is 0 whatever it says
    services = yaml.safe_load(done.stdout)["services"]
    assert services["worker"]["deploy"]["replicas"] == 5
    assert services["worker"]["environment"]["PARITY_DATABASE_URL"] == "postgresql://parity:one@postgres:5432/parity"
    refused = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert refused.stdout == ""
    assert "env.example" in refused.stderr


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    verify = tool("systemd-analyze")
    for unit in UNITS:
        program = Path(sys.executable).parent
        # they exist where the package is installed; Celery's need not here
        text = re.sub(
            r"^ExecStart=/opt/parity/bin/\S+", f"ExecStart={program / 'python'}", unit.read_text(), flags=re.M
        )
        (tmp_path / unit.name).write_text(text)
    names = [str(tmp_path / unit.name.replace("@.", "@1.")) for unit in UNITS]
    done = subprocess.run([verify, "verify", *names], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
