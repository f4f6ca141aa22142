"""Which runs are forked from a process that has our code loaded."""

from __future__ import annotations

import sys

import dagster as dg
import pytest
from dagster._core.code_pointer import CodePointer, FileCodePointer, ModuleCodePointer
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin

from parity_dagster.dagster_instance.launcher import OUR_LOCATION, is_ours

OURS = ModuleCodePointer(OUR_LOCATION, "defs", None)


@pytest.mark.parametrize(
    ("executable", "image", "pointer", "is_forked"),
    [
        (sys.executable, None, OURS, True),
        ("/opt/other/bin/python", None, OURS, False),
        (sys.executable, "registry.example.com/other:1", OURS, False),
        (sys.executable, None, ModuleCodePointer("their.definitions", "defs", None), False),
        (sys.executable, None, FileCodePointer("other.py", "defs"), False),
    ],
    ids=["ours", "another interpreter", "an image", "another module", "a file"],
)
def test_only_runs_of_our_code_and_our_interpreter_are_forked(
    executable: str, image: str | None, pointer: CodePointer, is_forked: bool
) -> None:
    place = RepositoryPythonOrigin(executable, pointer, image, list(DEFAULT_DAGSTER_ENTRY_POINT), {})
    run = dg.DagsterRun(job_name="import_records", job_code_origin=JobPythonOrigin("import_records", place))
    assert is_ours(run) is is_forked


def test_a_run_without_an_origin_is_nobodys() -> None:
    assert not is_ours(dg.DagsterRun(job_name="import_records"))
