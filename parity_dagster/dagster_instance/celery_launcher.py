"""Runs as tasks of Celery, by Dagster's launcher, with what that one does not do: a run that is canceled ends so."""

from __future__ import annotations

import dagster as dg
from dagster_celery.launcher import CeleryRunLauncher as DagstersCeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from parity_dagster.dagster_instance.private import CheckRunHealthResult, WorkerStatus


class CeleryRunLauncher(DagstersCeleryRunLauncher):
    """Dagster's own, named in dagster.yaml with the same configuration."""

    def terminate(self, run_id: str) -> bool:
        """Interrupt a run; it gives back its pairs and ends as canceled."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or DAGSTER_CELERY_TASK_ID_TAG not in run.tags:
            return False
        # else its process takes the signal for an accident, the run fails, and its pairs are launched again
        self._instance.report_run_canceling(run)
        return bool(super().terminate(run_id))

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Say whether a run's process is alive.

        Returns:
            `FAILED` only if Celery has seen the task fail. What it does not know, because Redis lost it, a worker was
            killed and could not say so, or the run is no task of its, `run_health_sensor` knows.
        """
        if DAGSTER_CELERY_TASK_ID_TAG in run.tags:
            found: CheckRunHealthResult = super().check_run_worker_health(run)
            if found.status is WorkerStatus.FAILED:
                return found
        return CheckRunHealthResult(WorkerStatus.RUNNING)
