"""The import service as a Dagster resource."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext

import dagster as dg
from pydantic import Field

from parity_dagster.errors import ParityError
from parity_dagster.monitoring.logs import configure_logging
from parity_dagster.orchestration.run_health import at_work
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings, load_settings


class ImportServiceResource(dg.ConfigurableResource[ImportService]):
    """Gives assets and ops a plain `ImportService` that belongs to the run.

    Settings come from the `PARITY_*` variables of the process that runs; the fields here are those worth
    changing for a single run in the launchpad. The database URL is deliberately not one of them: Dagster
    stores run config and shows it.
    """

    page_size: int | None = Field(default=None, description="records per page, instead of PARITY_PAGE_SIZE")
    page_delay: int | None = Field(default=None, description="milliseconds between pages, instead of PARITY_PAGE_DELAY")
    concurrency: int | None = Field(default=None, description="requests in flight, instead of PARITY_CONCURRENCY")

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[ImportService]:
        """Open a service for the run and close it afterwards.

        Args:
            context: Dagster's; its run id goes into the rows.

        Yields:
            The service. What the run's own steps do not write down (`step_events`) is reported when the run is over.
        """
        changes = {
            "page_size": self.page_size,
            "page_delay": self.page_delay,
            "concurrency": self.concurrency,
        }
        try:
            settings = load_settings(**{name: value for name, value in changes.items() if value is not None})
        except ParityError as exc:
            raise dg.Failure(description=str(exc), allow_retries=False) from None
        with _service(settings, context) as service:
            yield service


def bound_service(settings: Settings) -> dg.ResourceDefinition:
    """The same with fixed settings, whatever the environment says."""

    def opened(context: dg.InitResourceContext) -> Generator[ImportService]:
        with _service(settings, context) as service:
            yield service

    return dg.ResourceDefinition(opened)


@contextmanager
def _service(settings: Settings, context: dg.InitResourceContext) -> Generator[ImportService]:
    run_id = context.run.run_id if context.run else None
    if settings.log_format == "json":
        configure_logging("json")
    held = nullcontext() if run_id is None else at_work(context.instance, settings, run_id)
    with held, ImportService(settings, run_id=run_id) as service:
        yield service
