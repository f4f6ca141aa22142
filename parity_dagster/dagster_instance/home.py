"""A folder for DAGSTER_HOME: this project's dagster.yaml, for the engine that executes runs.

There is one dagster.yaml, that of the repository, which `dagster dev` uses in a checkout. Engines beyond this machine
replace the parts of it that are theirs (`engines/`). A file says in its first line what it was when it was written, so
that one which a person has changed is known, and left.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import parity_dagster
from parity_dagster.errors import SettingsError

DAGSTER_YAML = "dagster.yaml"
WORKSPACE_YAML = "workspace.yaml"

_STAMP = "# Written by parity_dagster"
_PACKAGE = Path(parity_dagster.__file__).parent


class Launcher(StrEnum):
    """What starts the processes of runs."""

    LOCAL = "local"
    CELERY = "celery"
    DOCKER = "docker"
    K8S = "k8s"


class Outcome(StrEnum):
    """What became of a file."""

    WRITTEN = "written"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    CHANGED_BY_HAND = "changed by hand"


class Written(NamedTuple):
    """A file of a folder for DAGSTER_HOME."""

    path: Path
    outcome: Outcome


def dagster_yaml(launcher: Launcher) -> str:
    """This project's dagster.yaml for an engine."""
    text = _shipped(DAGSTER_YAML)
    if launcher is Launcher.LOCAL:
        return text
    parts = {_key(part): part for part in _parts(text)}
    engine = (_PACKAGE / "dagster_instance" / "engines" / f"{launcher}.yaml").read_text(encoding="utf-8")
    # a part that is there keeps its place, and a new one goes to the end
    parts.update({_key(part): part for part in _parts(engine)})
    return "\n\n".join(parts.values()) + "\n"


def workspace_yaml() -> str:
    """What the webserver and the daemon load."""
    return _shipped(WORKSPACE_YAML)


def write_home(folder: Path, launcher: Launcher, *, keep_unstamped: bool = True) -> list[Written]:
    """Write the files of a DAGSTER_HOME; all of them, or none if a person has changed one.

    Args:
        keep_unstamped: whether a file that does not say who wrote it is a person's.

    Raises:
        SettingsError: the folder cannot be written; the text says why.
    """
    files = {
        folder / DAGSTER_YAML: _stamped(dagster_yaml(launcher)),
        folder / WORKSPACE_YAML: _stamped(workspace_yaml()),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = [Written(path, _compared(path, text, keep_unstamped)) for path, text in files.items()]
        if not is_refused(found):
            _write({path: files[path] for path, outcome in found if outcome is not Outcome.UNCHANGED})
    except OSError as exc:
        raise SettingsError(
            f"{folder} cannot be written: {exc.strerror}: {exc.filename}; choose another folder"
        ) from None
    return found


def is_refused(files: Sequence[Written]) -> bool:
    """Whether nothing was written, because a person has changed one of the files."""
    return any(file.outcome is Outcome.CHANGED_BY_HAND for file in files)


def _write(files: Mapping[Path, str]) -> None:
    """Write files, first beside where they belong: for what a full disk cuts off of a dagster.yaml, Dagster has
    its stock settings."""
    targets = {path.resolve(): text for path, text in files.items()}
    new = {target: target.with_name(f".{target.name}.{os.getpid()}") for target in targets}
    try:
        for target, text in targets.items():
            new[target].write_text(text, encoding="utf-8")
        for target in targets:
            new[target].replace(target)
    finally:
        for path in new.values():
            path.unlink(missing_ok=True)


def _compared(path: Path, text: str, keep_unstamped: bool) -> Outcome:
    if not path.exists() and not path.is_symlink():
        return Outcome.WRITTEN
    there = path.read_bytes().decode("utf-8", errors="replace")
    if there == text:
        return Outcome.UNCHANGED
    is_stamped = there.startswith(_STAMP)
    if (is_stamped and not _is_as_written(there)) or (not is_stamped and keep_unstamped):
        return Outcome.CHANGED_BY_HAND
    return Outcome.REPLACED


def _stamped(text: str) -> str:
    from importlib.metadata import version  # slow to load, and every command loads this module

    return f"{_STAMP} {version('parity_dagster')}; changed by hand if its SHA-256 is not {_digest(text)}\n{text}"


def _is_as_written(text: str) -> bool:
    stamp, _, rest = text.partition("\n")
    return stamp.rpartition(" ")[2] == _digest(rest)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shipped(name: str) -> str:
    """A file that stands at the top of a checkout, and in the package when that is installed."""
    installed, checkout = _PACKAGE / name, _PACKAGE.parent / name
    return (installed if installed.is_file() else checkout).read_text(encoding="utf-8")


def _parts(text: str) -> list[str]:
    return text.rstrip("\n").split("\n\n")


def _key(part: str) -> str:
    """The top-level key of a part of a dagster.yaml, or its comment if it is nothing else."""
    return next((line for line in part.splitlines() if not line.startswith("#")), part).partition(":")[0]
