"""Where Dagster finds its configuration when `parity` runs outside of a project folder."""

from __future__ import annotations

from pathlib import Path

import parity_dagster
from parity_dagster.errors import SettingsError
from parity_dagster.settings import Settings

# Without the file only the storage is named, and Dagster's own defaults hold for the rest.
_STORAGE_ONLY = """storage:
  custom:
    module: parity_dagster.dagster_instance.storage
    class: ParityStorage
    config: {}
telemetry:
  enabled: false
"""


def package_dagster_home(settings: Settings) -> Path:
    """Make the folder that serves as DAGSTER_HOME; it holds this version's dagster.yaml."""
    package = Path(parity_dagster.__file__).parent
    # in an installed package, and in a checkout
    found = (package / "dagster.yaml", package.parent / "dagster.yaml")
    source = next((path for path in found if path.is_file()), None)
    content = source.read_text(encoding="utf-8") if source else _STORAGE_ONLY
    home = settings.home.expanduser().resolve() / "dagster"
    target = home / "dagster.yaml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_text(encoding="utf-8") != content:
            target.write_text(content, encoding="utf-8")
    except OSError as exc:
        raise SettingsError(
            f"PARITY_HOME cannot be written: {exc.strerror}: {exc.filename}; choose another folder"
        ) from None
    return home
