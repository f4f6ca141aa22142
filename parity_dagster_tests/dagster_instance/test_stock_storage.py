"""Everything works on Dagster's own storage, too, which its Helm chart does not let anybody replace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import make_url

from parity_dagster.dagster_instance.keys import RECORDS_KEY, from_partition_key
from parity_dagster.dagster_instance.private import InstanceRef
from parity_dagster.models import Pair
from parity_dagster.orchestration.queue import launch_due
from parity_dagster.orchestration.report import report_pending
from parity_dagster.orchestration.run_health import fail_lost_runs
from parity_dagster.sample_network import LIKE, POST, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import sqlalchemy_url
from parity_dagster_tests.dagster_runs import materialized, run


@pytest.fixture
def instance(settings: Settings, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster's tables among ours, as if its chart had been given the same database."""
    url = make_url(sqlalchemy_url(settings)).render_as_string(hide_password=False)
    overrides = {"storage": {"postgres": {"postgres_url": url}}, "telemetry": {"enabled": False}}
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), overrides=overrides)) as found:
        yield found


@pytest.mark.long
def test_runs_the_queue_and_reports_do(settings: Settings, instance: dg.DagsterInstance, network: Running) -> None:
    settings = settings.model_copy(update={"plc_url": network.plc_url, "collections": (POST, LIKE)})
    ours, outside, queued = (network.network.add_account({POST: 3, LIKE: 1}) for _ in range(3))
    result = run(settings, instance, "import_records", config={"dids": [ours]})
    assert result.success
    assert sorted(materialized(result)) == sorted(Pair(ours, nsid) for nsid in (POST, LIKE))
    with ImportService(settings) as service:
        assert service.import_user(outside).is_success
        service.enqueue([Pair(queued, POST)])
    assert report_pending(instance, settings).written == 2
    (request,) = launch_due(instance, settings)
    assert run(settings, instance, "import_records", config=request.run_config).success
    assert fail_lost_runs(instance, settings, quiet=0) == []
    shown = [str(record.partition_key) for record in instance.fetch_materializations(RECORDS_KEY, limit=100).records]
    wanted = [Pair(ours, POST), Pair(ours, LIKE), Pair(outside, POST), Pair(outside, LIKE), Pair(queued, POST)]
    assert sorted(map(from_partition_key, shown)) == sorted(wanted)
