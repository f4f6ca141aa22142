"""The Celery app of workers that execute runs: `celery -A parity_dagster.dagster_instance.celery_app worker`.

Broker and options are those of the run launcher in DAGSTER_HOME, so they stand in one file. No database is asked until
a run has come: the processes of the runs are forked from this one, and share no connection with it.
"""

from __future__ import annotations

import os

from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

from parity_dagster.dagster_instance.celery_launcher import CeleryRunLauncher
from parity_dagster.dagster_instance.private import InstanceRef
from parity_dagster.errors import SettingsError

_CURE = "`parity dagster-home DIR --launcher celery` writes one"


def _launcher() -> CeleryRunLauncher:
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        raise SettingsError(f"DAGSTER_HOME is not set; {_CURE}")
    launcher = InstanceRef.from_dir(home).run_launcher
    if not isinstance(launcher, CeleryRunLauncher):
        raise SettingsError(f"dagster.yaml in {home} does not have runs executed by Celery; {_CURE}")
    return launcher


app = _launcher().celery
execute_job = create_execute_job_task(app)
resume_job = create_resume_job_task(app)
