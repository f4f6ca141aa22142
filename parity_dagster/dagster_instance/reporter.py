"""Where installations that are older than the code (editable ones) look for `parity_dagster.orchestration.reporter`."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    return getattr(import_module("parity_dagster.orchestration.reporter"), name)
