"""What was made with version 0.1.0 works after `parity migrate`: tables, a script, dagster.yaml."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from parity_dagster import ImportResult, ImportService, ImportStatus, Pair
from parity_dagster.dagster_instance.event_log import ParityEventLogStorage
from parity_dagster.dagster_instance.launcher import ForkingRunLauncher
from parity_dagster.sample_network import LIKE, POST, Running, SampleNetwork, run_in_thread
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store.database import migrate
from parity_dagster.store.schema import SCHEMA_REVISION
from parity_dagster_tests.imports import listed, settings_for, stored

DATA = Path(__file__).parents[1] / "data"


def network_of_then() -> tuple[SampleNetwork, list[str]]:
    network = SampleNetwork(hosts=2, seed=5)
    dids = [network.add_account({POST: 30, LIKE: 12}) for _ in range(3)]
    network.add_odd(dids[1], POST, ["nul", "lone-surrogate"])
    return network, dids


def settings_of_then(url: str, running: Running, tmp_path: Path) -> Settings:
    """A database as version 0.1.0 left it, on the hosts of this network."""
    dump = (DATA / "revision_0005.sql").read_text()
    for name, origin in running.pds_urls.items():
        dump = dump.replace(f"http://{name}.sample", origin)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(dump.encode())
    return settings_for(
        load_settings(database_url=url, home=tmp_path, allow_private_hosts=True, page_delay=0, page_size=10),
        running,
        collections=(POST, LIKE),
    )


def test_an_upgraded_database_goes_on_where_the_first_version_stopped(empty_database_url: str, tmp_path: Path) -> None:
    network, dids = network_of_then()
    with run_in_thread(network) as running:
        settings = settings_of_then(empty_database_url, running, tmp_path)
        assert migrate(settings) == SCHEMA_REVISION
        with ImportService(settings, report=False) as service:
            before = {state.pair: state for state in service.find_states()}
            assert [before[Pair(dids[0], nsid)].status for nsid in (POST, LIKE)] == [ImportStatus.COMPLETED] * 2
            assert before[Pair(dids[2], POST)].pages == 2
            assert len(service.find_failed_records()) == 2
            assert stored(settings, dids[0], POST).keys() == network.records(dids[0], POST).keys()

            # the words of a script that was written for it
            results = service.resume_all()
            assert {type(result) for result in results} == {ImportResult}
            assert {(result.did, result.collection) for result in results} == {(dids[1], LIKE), (dids[2], POST)}
            assert all(result.is_success for result in results)
            # two pages were committed then, and are not asked for again
            assert None not in network.log.cursors(dids[2], POST)

            for did in dids:
                assert service.import_user(did, refresh=True).completed
                for nsid in (POST, LIKE):
                    # the sample network of then wrote other texts under the same keys, at the same revision
                    now = listed(network, did, nsid)
                    assert stored(settings, did, nsid).keys() == now.keys()
                    state = service.get_status(did, nsid)
                    assert state is not None
                    assert (state.status, state.records_synced) == (ImportStatus.COMPLETED, len(now))
            assert len(service.find_failed_records()) == 2


def test_a_dagster_yaml_of_the_first_version_names_the_same_classes(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.database_url is not None
    monkeypatch.setenv("PARITY_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("PARITY_HOME", str(tmp_path / "home"))
    shutil.copy(DATA / "dagster_0.1.0.yaml", tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.run_launcher, ForkingRunLauncher)
        assert type(instance.event_log_storage).__module__ == ParityEventLogStorage.__module__
