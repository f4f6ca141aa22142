"""`parity dagster-home`: one dagster.yaml for all engines, and nothing of a person's is overwritten."""

from __future__ import annotations

import json
import os
import re
import resource
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from parity_dagster.cli.dev import dev_home
from parity_dagster.dagster_instance.home import Launcher, dagster_yaml, workspace_yaml
from parity_dagster.settings import Settings
from parity_dagster_tests.command_line import call

ROOT = Path(__file__).parents[2]
PARTS_OF_ENGINES = {"run_launcher", "concurrency", "run_monitoring", "compute_logs"}
launchers = pytest.mark.parametrize("launcher", list(Launcher))


def body(path: Path) -> str:
    """A file without the line that says who wrote it."""
    return path.read_text().partition("\n")[2]


def test_without_an_option_it_is_what_a_checkout_uses(tmp_path: Path) -> None:
    assert call("dagster-home", str(tmp_path)).exit_code == 0
    assert body(tmp_path / "dagster.yaml") == (ROOT / "dagster.yaml").read_text()
    assert body(tmp_path / "workspace.yaml") == (ROOT / "workspace.yaml").read_text()


@launchers
def test_an_engine_changes_what_is_its_own_and_every_setting_has_its_comment(launcher: Launcher) -> None:
    ours, engine = yaml.safe_load(dagster_yaml(Launcher.LOCAL)), yaml.safe_load(dagster_yaml(launcher))
    assert {key for key in ours | engine if ours.get(key) != engine.get(key)} <= PARTS_OF_ENGINES
    assert engine["run_monitoring"].keys() == ours["run_monitoring"].keys()
    for part in dagster_yaml(launcher).split("\n\n"):
        assert "#" in part, f"no comment: {part}"


@launchers
def test_it_holds_no_secret_and_names_the_variables_that_it_reads(launcher: Launcher, tmp_path: Path) -> None:
    done = call("dagster-home", str(tmp_path / "home"), "--launcher", launcher.value, "--json")
    said = json.loads(done.stdout)
    read = set(re.findall(r"\benv: (\w+)", dagster_yaml(launcher)))
    assert read <= said["variables"].keys()
    assert said["variables"]["DAGSTER_HOME"] == str(tmp_path / "home")
    assert said["files"] == {"dagster.yaml": "written", "workspace.yaml": "written"}
    for process in said["start"]:
        assert process["command"].split()[0] in {"parity", "dagster-daemon", "dagster-webserver", "celery"}
    shown = call("dagster-home", str(tmp_path / "home"), "--launcher", launcher.value).stdout
    for text in (*said["variables"], *(process["command"] for process in said["start"])):
        assert text in shown
    assert "dagster.yaml    unchanged" in shown


def test_what_an_earlier_call_wrote_is_replaced_and_what_a_person_changed_is_left(tmp_path: Path) -> None:
    assert call("dagster-home", str(tmp_path)).exit_code == 0
    done = call("dagster-home", str(tmp_path), "--launcher", "celery", "--json")
    assert json.loads(done.stdout)["files"] == {"dagster.yaml": "replaced", "workspace.yaml": "unchanged"}
    changed = (tmp_path / "dagster.yaml").read_text().replace("limit: 6", "limit: 60")
    (tmp_path / "dagster.yaml").write_text(changed)
    (tmp_path / "workspace.yaml").unlink()
    refused = call("dagster-home", str(tmp_path), "--launcher", "docker")
    assert refused.exit_code == 1
    assert (tmp_path / "dagster.yaml").read_text() == changed
    assert not (tmp_path / "workspace.yaml").exists(), "all of it, or nothing"
    assert refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    assert str(tmp_path / "dagster.yaml") in line
    assert "move it away" in line
    as_json = call("dagster-home", str(tmp_path), "--launcher", "docker", "--json")
    assert json.loads(as_json.stdout)["files"]["dagster.yaml"] == "changed by hand"
    (tmp_path / "dagster.yaml").rename(tmp_path / "mine.yaml")
    assert call("dagster-home", str(tmp_path), "--launcher", "docker").exit_code == 0


@pytest.mark.parametrize("there", [b"telemetry: {enabled: false}\n", b"\xff\xfe", b""])
def test_a_file_of_somebody_else_is_left(tmp_path: Path, there: bytes) -> None:
    (tmp_path / "workspace.yaml").write_bytes(there)
    assert call("dagster-home", str(tmp_path)).exit_code == 1
    assert (tmp_path / "workspace.yaml").read_bytes() == there
    assert not (tmp_path / "dagster.yaml").exists()


def test_a_folder_that_cannot_be_made_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        refused = call("dagster-home", str(folder))
        assert refused.exit_code == 2
        assert len(refused.stderr.splitlines()) == 1


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path: Path) -> None:
    assert call("dagster-home", str(tmp_path)).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        refused = call("dagster-home", str(tmp_path), "--launcher", "celery")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert refused.exit_code == 2, refused.output
    assert "cannot be written" in refused.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_parity_dev_uses_the_same_files_and_leaves_what_a_person_changed(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    home = dev_home(settings)
    assert body(home / "dagster.yaml") == dagster_yaml(Launcher.LOCAL)
    assert body(home / "workspace.yaml") == workspace_yaml()
    (home / "dagster.yaml").write_text("what an earlier version wrote\n")
    dev_home(settings)
    assert body(home / "dagster.yaml") == dagster_yaml(Launcher.LOCAL)
    assert capsys.readouterr().out == ""
    with (home / "dagster.yaml").open("a") as file:
        file.write("# mine\n")
    dev_home(settings)
    assert (home / "dagster.yaml").read_text().endswith("# mine\n")
    assert f"{home / 'dagster.yaml'} was changed by hand" in capsys.readouterr().out


# Dagster's own opinion, where the engines are installed.

CLASSES = {
    Launcher.CELERY: "parity_dagster.dagster_instance.celery_launcher.CeleryRunLauncher",
    Launcher.DOCKER: "dagster_docker.DockerRunLauncher",
    Launcher.K8S: "dagster_k8s.K8sRunLauncher",
}


@pytest.mark.long
@pytest.mark.parametrize("launcher", list(CLASSES))
def test_dagster_reads_it_and_the_engine_takes_its_configuration(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster._config import process_config, resolve_to_config_type
    from dagster._core.instance.config import dagster_instance_config

    module, _, name = CLASSES[launcher].rpartition(".")
    pytest.importorskip(f"dagster_{launcher}", reason=f"the extra {launcher} is not installed")
    found = getattr(import_module(module), name)
    home = tmp_path / "home"
    variables = json.loads(call("dagster-home", str(home), "--launcher", launcher.value, "--json").stdout)["variables"]
    for variable in variables.keys() - os.environ.keys():
        monkeypatch.setenv(variable, "something")
    config, _ = dagster_instance_config(str(home))
    given = config["run_launcher"]
    assert f"{given['module']}.{given['class']}" == CLASSES[launcher]
    checked = process_config(resolve_to_config_type(found.config_type()), given["config"])
    assert checked.success, checked.errors
