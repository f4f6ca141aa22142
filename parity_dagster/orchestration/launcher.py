"""Where a dagster.yaml of 0.1.0 looks for the launcher; new ones name `parity_dagster.dagster_instance`."""

from parity_dagster.dagster_instance.launcher import ForkingRunLauncher as ForkingRunLauncher
