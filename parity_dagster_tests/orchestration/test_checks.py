"""The checks: each fails when what it watches is wrong, and names the pair."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Literal

import dagster as dg
import pytest

from parity_dagster.dagster_instance.keys import RECORDS_KEY
from parity_dagster.definitions import build_defs
from parity_dagster.importing.audit import audit
from parity_dagster.models import Pair
from parity_dagster.orchestration.checks import CHECKS_KEY
from parity_dagster.orchestration.partitions import register_dids
from parity_dagster.orchestration.report import report_pending
from parity_dagster.orchestration.step_events import report_without_run
from parity_dagster.sample_network import LIKE, POST, Fault, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster_tests.dagster_runs import one, rectangle, run
from parity_dagster_tests.quick import quick

NAMES = {
    "no_failed_records",
    "no_failed_imports",
    "counts_match",
    "state_equals_metadata",
    "sample_audit",
    "import_freshness",
    "no_suspicious_copies",
    "no_missing_collections",
}
NO_ARCHIVES = Fault(kind="501", method="getRepo")


@pytest.fixture
def accounts(network: Running, instance: dg.DagsterInstance) -> list[str]:
    dids = [network.network.add_account({POST: 130 + number, LIKE: 12}) for number in range(3)]
    register_dids(instance, dids)
    return dids


@pytest.fixture(params=["archives", "lists"])
def by_either(request: pytest.FixtureRequest, network: Running, accounts: list[str]) -> None:
    """The audit reads the signed repositories, or the hosts give none."""
    if request.param == "lists":
        network.network.behave(faults=(NO_ARCHIVES,))


def checked(settings: Settings, instance: dg.DagsterInstance) -> dict[str, dg.AssetCheckEvaluation]:
    """Every check, as the job executes them."""
    result = run(settings, instance, "run_all_checks")
    assert result.success
    return {found.check_name: found for found in result.get_asset_check_evaluations()}


def failing(evaluations: dict[str, dg.AssetCheckEvaluation]) -> set[str]:
    """Those that have failed, but for the one that fails wherever a test imports single pairs of an account."""
    assert evaluations.keys() == NAMES
    return {name for name, found in evaluations.items() if not found.passed} - {"no_missing_collections"}


def shown(evaluation: dg.AssetCheckEvaluation) -> str:
    found = evaluation.metadata["found"]
    assert isinstance(found, dg.MarkdownMetadataValue)
    return str(found.md_str).replace("\\", "")


def assert_names(evaluation: dg.AssetCheckEvaluation, pair: Pair) -> None:
    key = f"{pair.collection}|{pair.did}"
    assert key in (evaluation.description or "")
    assert key in shown(evaluation)


def resumed(settings: Settings, instance: dg.DagsterInstance) -> None:
    """`parity import --resume`: outside of any run, reported to the instance."""
    with ImportService(settings) as service:
        assert all(result.is_success for result in service.resume_all())
    report_pending(instance, settings)


def test_after_a_clean_import_every_check_passes(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str]
) -> None:
    assert run(settings, instance, tags=rectangle(Pair(accounts[0], POST), Pair(accounts[2], LIKE))).success
    found = checked(settings, instance)
    assert failing(found) == set()
    assert found["sample_audit"].metadata["records_compared"] == dg.IntMetadataValue(130 + 131 + 132 + 36)
    assert found["sample_audit"].metadata["loss_rate"] == dg.FloatMetadataValue(0.0)
    assert found["counts_match"].metadata["pairs"] == dg.IntMetadataValue(6)


def test_a_collection_that_was_registered_later_is_missed_until_it_is_queued(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str]
) -> None:
    with ImportService(settings) as service:
        assert all(result.is_success for result in service.import_pairs(Pair(did, POST) for did in accounts))
    report_pending(instance, settings)
    found = checked(settings, instance)
    assert not found["no_missing_collections"].passed
    assert f"3 accounts have no row for {LIKE}" in (found["no_missing_collections"].description or "")
    assert found["no_missing_collections"].metadata["pairs_missing"] == dg.IntMetadataValue(3)
    with ImportService(settings) as service:
        assert service.enqueue_known() == 3
    assert checked(settings, instance)["no_missing_collections"].passed


def test_before_any_import_every_check_passes(settings: Settings, instance: dg.DagsterInstance) -> None:
    assert failing(checked(settings, instance)) == set()


def test_planted_failures_are_named_and_after_resuming_all_pass(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    broken, cut = Pair(accounts[1], POST), Pair(accounts[2], POST)
    network.network.set_status(accounts[0], "deactivated")
    network.network.behave(
        did=cut.did, collection=POST, faults=(Fault(kind="400", method="listRecords", with_cursor=True),)
    )
    (odd,) = network.network.add_odd(broken.did, POST, ["nul"])
    assert not run(settings, instance, tags=rectangle(Pair(accounts[0], POST), Pair(accounts[2], LIKE))).success
    found = checked(settings, instance)
    assert failing(found) == {"no_failed_records", "no_failed_imports"}
    assert_names(found["no_failed_records"], broken)
    assert "nul_character" in shown(found["no_failed_records"])
    assert odd in shown(found["no_failed_records"])
    assert f"{POST}|{accounts[0]}" in shown(found["no_failed_imports"])
    assert_names(found["no_failed_imports"], cut)
    assert "deactivated" in shown(found["no_failed_imports"])
    assert found["no_failed_imports"].metadata["failed_pairs"] == dg.IntMetadataValue(1)
    assert found["no_failed_imports"].metadata["gone_pairs"] == dg.IntMetadataValue(2)

    network.network.set_status(accounts[0], "active")
    network.network.behave(did=cut.did, collection=POST, faults=())
    network.network.delete_record(broken.did, POST, odd)
    resumed(settings, instance)
    with ImportService(settings) as service:
        assert service.import_user_collection(*broken, refresh=True).is_success
    report_pending(instance, settings)
    assert failing(checked(settings, instance)) == set()


def change(settings: Settings, statement: str, *values: Any) -> None:
    with closing(connect(settings, autocommit=True)) as conn:
        assert conn.execute(statement.encode(), values).rowcount > 0


@pytest.mark.usefixtures("by_either")
def test_a_lost_row_fails_the_count_and_the_audit(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str]
) -> None:
    pair = Pair(accounts[1], LIKE)
    run(settings, instance, tags=rectangle(Pair(accounts[0], POST), Pair(accounts[2], LIKE)))
    change(
        settings,
        "DELETE FROM atproto_records WHERE (did, collection, rkey) = (SELECT did, collection, max(rkey)"
        " FROM atproto_records WHERE did = %s AND collection = %s GROUP BY did, collection)",
        *pair,
    )
    found = checked(settings, instance)
    assert failing(found) == {"counts_match", "sample_audit"}
    assert_names(found["counts_match"], pair)
    assert_names(found["sample_audit"], pair)
    assert "missing" in shown(found["sample_audit"])
    loss = found["sample_audit"].metadata["loss_rate"].value
    assert loss == pytest.approx(1 / (130 + 131 + 132 + 36))


@pytest.mark.parametrize(("column", "value"), quick(1, [("value", '{"text": "forged"}'), ("cid", "bafyforged")]))
def test_a_changed_record_fails_the_audit(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str], column: str, value: str
) -> None:
    pair = Pair(accounts[0], LIKE)
    run(settings, instance, tags=one(pair))
    newest = "rkey = (SELECT max(rkey) FROM atproto_records)"
    change(settings, f"UPDATE atproto_records SET {column} = %s WHERE {newest}", value)
    found = checked(settings, instance)
    assert failing(found) == {"sample_audit"}
    assert_names(found["sample_audit"], pair)
    assert "different" in shown(found["sample_audit"])


@pytest.mark.usefixtures("by_either")
@pytest.mark.long
def test_a_surplus_row_fails_the_count_and_the_audit(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str]
) -> None:
    pair = Pair(accounts[0], LIKE)
    run(settings, instance, tags=one(pair))
    change(
        settings,
        "INSERT INTO atproto_records (did, collection, rkey, value, first_seen_at)"
        " VALUES (%s, %s, 'forged', '{}', now() - interval '1 hour')",
        *pair,
    )
    found = checked(settings, instance)
    assert failing(found) == {"counts_match", "sample_audit"}
    assert_names(found["counts_match"], pair)
    assert "surplus forged" in shown(found["sample_audit"])


@pytest.mark.long
@pytest.mark.usefixtures("by_either")
def test_what_changes_after_the_import_is_no_loss(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    pair = Pair(accounts[0], LIKE)
    run(settings, instance, tags=one(pair))
    rkeys = sorted(network.network.records(*pair))
    network.network.put_record(*pair, {"$type": LIKE, "new": True})
    network.network.put_record(*pair, {"$type": LIKE, "changed": True}, rkey=rkeys[0])
    network.network.delete_record(*pair, rkeys[1])
    found = checked(settings, instance)
    assert failing(found) == set()
    (account,) = audit(settings).pairs
    assert (account.changed, account.missing, account.different, account.surplus) == (3, 0, 0, 0)


@pytest.mark.long
def test_what_a_signed_repository_shows_is_proven_and_what_a_list_shows_is_equal(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    for did in accounts:
        run(settings, instance, tags=one(Pair(did, LIKE)))
    network.network.log.clear()
    found = checked(settings, instance)["sample_audit"]
    assert found.metadata["records_proven"] == found.metadata["records_compared"] == dg.IntMetadataValue(36)
    assert found.description == "36 records of 3 accounts are proven: they are what was signed."
    assert shown(found).count("| proven |") == 3
    assert network.network.log.count(method="com.atproto.repo.listRecords") == 0

    network.network.behave(did=accounts[0], faults=(NO_ARCHIVES,))
    found = checked(settings, instance)["sample_audit"]
    assert found.passed
    assert found.metadata["records_compared"] == dg.IntMetadataValue(36)
    assert found.metadata["records_proven"] == dg.IntMetadataValue(24)
    assert (found.description or "").endswith(
        "agree with the table, and 24 of them are proven: they are what was signed."
    )
    assert (shown(found).count("| proven |"), shown(found).count("| equal |")) == (2, 1)


def test_a_wrong_repository_is_never_replaced_by_a_list(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    run(settings, instance, tags=one(Pair(accounts[0], POST)))
    network.network.behave(did=accounts[0], archive="forged")
    (found,) = audit(settings).pairs
    assert (found.outcome, found.is_proven, found.compared) == ("unread", False, 0)
    assert "is not signed with the key" in (found.error or "")


def test_a_repository_of_more_bytes_than_the_pages_may_have_is_read_by_pages(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    run(settings, instance, tags=one(Pair(accounts[0], LIKE)))
    network.network.behave(did=accounts[0], archive_surplus=-1)
    (found,) = audit(settings, max_pages=2).pairs
    assert (found.outcome, found.compared) == ("equal", 12)


@pytest.mark.long
def test_one_account_with_absurd_answers_does_not_end_the_audit_of_the_others(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    for did in accounts:
        run(settings, instance, tags=one(Pair(did, LIKE)))
    absurd = Fault(kind="headers", message="RateLimit-Remaining: nan\nRateLimit-Reset: -inf\nRetry-After: 1e999")
    network.network.behave(did=accounts[0], faults=(absurd,))
    report = audit(settings, accounts=len(accounts))
    assert {pair.did for pair in report.pairs} == set(accounts)
    assert [pair.error for pair in report.pairs if pair.error] == []
    assert report.lost == 0 < report.compared


@pytest.mark.long
@pytest.mark.parametrize("kind", ["hang", "501"])
def test_a_host_that_keeps_an_audit_waiting_is_not_waited_for(
    settings: Settings,
    instance: dg.DagsterInstance,
    network: Running,
    accounts: list[str],
    kind: Literal["hang", "501"],
) -> None:
    for did in accounts:
        run(settings, instance, tags=one(Pair(did, LIKE)))
    network.network.behave(did=accounts[0], faults=(NO_ARCHIVES, Fault(kind="hang", method="listRecords")))
    network.network.behave(
        did=accounts[1], faults=(Fault(kind=kind, method="getRepo"), Fault(kind="hang", method="getLatestCommit"))
    )
    report = audit(settings, accounts=len(accounts), seconds=2)
    errors = {pair.did: pair.error for pair in report.pairs}
    assert "did not show the whole list within 2 s" in (errors[accounts[0]] or "")
    assert "could not be found within 2 s" in (errors[accounts[1]] or "")
    assert errors[accounts[2]] is None
    assert report.lost == 0


def test_an_account_that_cannot_be_read_again_is_a_warning(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    run(settings, instance, tags=one(Pair(accounts[0], LIKE)))
    network.network.behave(did=accounts[0], faults=(Fault(kind="400", method="listRecords"), NO_ARCHIVES))
    found = checked(settings, instance)
    assert failing(found) == {"sample_audit"}
    assert found["sample_audit"].severity is dg.AssetCheckSeverity.WARN
    assert "could not be read again" in (found["sample_audit"].description or "")


def test_accounts_that_are_gone_are_counted_and_make_no_check_fail(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    run(settings, instance, tags=one(Pair(accounts[0], LIKE)))
    network.network.set_status(accounts[0], "takendown")
    network.network.set_status(accounts[1], "deactivated")
    unknown = "did:plc:" + "a" * 24
    result = run(settings, instance, "import_records", config={"dids": [accounts[1], unknown], "collections": [LIKE]})
    assert result.success
    found = checked(settings, instance)
    assert failing(found) == set()
    check = found["no_failed_imports"]
    assert check.description == (
        "None of 3 pairs has failed. 2 pairs are of accounts that are gone: deactivated (1), did_not_found (1)."
    )
    assert check.metadata["gone_pairs"] == dg.IntMetadataValue(2)
    assert "their accounts are gone by now" in (found["sample_audit"].description or "")


def test_a_row_that_differs_from_its_metadata_is_named_with_the_field(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str]
) -> None:
    pair = Pair(accounts[0], LIKE)
    run(settings, instance, tags=one(pair))
    change(settings, "UPDATE parity_import_states SET records_skipped = 7 WHERE did = %s", pair.did)
    found = checked(settings, instance)
    assert failing(found) == {"state_equals_metadata"}
    assert_names(found["state_equals_metadata"], pair)
    assert "records_skipped" in shown(found["state_equals_metadata"])


def test_a_pair_that_was_emptied_is_named_with_its_cure(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str]
) -> None:
    """As the end of a walk without page rows once did it: table, count and last metadata agree on nothing."""
    pair, other = Pair(accounts[0], LIKE), Pair(accounts[1], POST)
    for each in (pair, other):
        run(settings, instance, tags=one(each))
    assert failing(checked(settings, instance)) == set()
    change(settings, "UPDATE parity_upgrades SET upgraded_at = now() + interval '1 hour'")
    change(settings, "DELETE FROM atproto_records WHERE did = ANY(%s)", [pair.did, other.did])
    change(settings, "UPDATE parity_import_states SET records_synced = 0")
    with ImportService(settings, report=False) as service:
        report_without_run(instance, service.find_states())
    found = checked(settings, instance)
    assert failing(found) == {"no_suspicious_copies", "sample_audit"}
    check = found["no_suspicious_copies"]
    for each in (pair, other):
        assert_names(check, each)
        assert f"parity import {each.did} --collection {each.collection} --reread" in shown(check)
    assert "Dagster remembers 12 " in shown(check)
    assert "Dagster remembers 131 " in shown(check)
    run(settings, instance, tags={**one(pair), "parity/reread": "true"})
    config = {"partitions": [f"{other.collection}|{other.did}"], "reread": True}
    result = run(settings, instance, "import_records", config=config)
    assert result.success
    assert failing(checked(settings, instance)) == set()


def test_a_row_that_is_gone_is_named(settings: Settings, instance: dg.DagsterInstance, accounts: list[str]) -> None:
    pair = Pair(accounts[0], LIKE)
    run(settings, instance, tags=one(pair))
    change(settings, "DELETE FROM parity_import_states WHERE did = %s", pair.did)
    found = checked(settings, instance)
    assert failing(found) == {"state_equals_metadata"}
    assert_names(found["state_equals_metadata"], pair)


def test_an_import_that_dagster_was_never_told_of_is_named(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str]
) -> None:
    pair = Pair(accounts[0], LIKE)
    with ImportService(settings, report=False) as service:
        service.import_user_collection(*pair)
    found = checked(settings, instance)
    assert failing(found) == {"state_equals_metadata"}
    assert_names(found["state_equals_metadata"], pair)


@pytest.mark.long
def test_a_pair_that_waits_for_ever_and_one_that_is_old_are_named(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str]
) -> None:
    waiting, old = Pair(accounts[1], POST), Pair(accounts[0], LIKE)
    run(settings, instance, tags=one(old))
    with ImportService(settings, report=False) as service:
        service.enqueue([waiting])
    change(
        settings,
        "INSERT INTO parity_import_states (did, collection, status, completed_at, updated_at)"
        " SELECT %s, status, status, now() - interval '40 days', now() - interval '40 days'"
        " FROM unnest('{pending,completed}'::text[]) status",
        waiting.did,
    )  # of collections that are not registered any more
    fresh = checked(settings, instance)["import_freshness"]
    assert fresh.passed
    assert "None of 4 pairs waits in vain" in (fresh.description or "")
    change(settings, "DELETE FROM parity_import_states WHERE did = %s AND collection = status", waiting.did)
    assert failing(checked(settings, instance)) == set()
    update = "UPDATE parity_import_states SET"
    change(settings, f"{update} completed_at = now() - interval '40 days' WHERE did = %s", old.did)
    change(settings, f"{update} confirmed_at = now() - interval '29 days' WHERE did = %s", old.did)
    fresh = checked(settings, instance)["import_freshness"]
    assert fresh.passed
    assert "the stalest copy is 29.0 days old" in (fresh.description or "")
    assert fresh.metadata["stalest_copy_days"] == dg.FloatMetadataValue(29.0)
    change(settings, f"{update} confirmed_at = now() - interval '31 days' WHERE did = %s", old.did)
    change(settings, "UPDATE atproto_records SET first_seen_at = now() - interval '41 days'")
    found = checked(settings, instance)
    assert failing(found) == {"import_freshness", "state_equals_metadata"}
    assert found["import_freshness"].severity is dg.AssetCheckSeverity.WARN
    change(settings, f"{update} updated_at = now() - interval '2 hours' WHERE did = %s", waiting.did)
    fresh = checked(settings, instance)["import_freshness"]
    assert fresh.severity is dg.AssetCheckSeverity.WARN, "runs take pairs, so its turn will come"
    change(settings, f"{update} updated_at = now() - interval '2 hours' WHERE did = %s", old.did)
    found = checked(settings, instance)
    assert found["import_freshness"].severity is dg.AssetCheckSeverity.ERROR
    assert_names(found["import_freshness"], waiting)
    assert_names(found["import_freshness"], old)


def test_a_green_partition_materialized_by_hand_changes_no_verdict(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    bad, good = Pair(accounts[0], LIKE), Pair(accounts[1], LIKE)
    network.network.behave(did=bad.did, faults=(Fault(kind="400", method="listRecords"),))
    for pair in (good, bad):
        run(settings, instance, tags=one(pair))
    assert failing(checked(settings, instance)) == {"no_failed_imports"}
    # as the button Materialize does it: with all checks that belong to the asset
    job = build_defs(settings).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, asset_selection=[RECORDS_KEY], tags=one(good))
    assert result.success
    assert result.get_asset_check_evaluations() == []
    key = dg.AssetCheckKey(CHECKS_KEY, "no_failed_imports")
    (verdict,) = instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).values()
    assert verdict.evaluation is not None
    assert "1 pair failed" in (verdict.evaluation.description or "")
    # what Dagster's UI asks before it calls a check "not evaluated"
    assert instance.get_latest_materialization_event(CHECKS_KEY) is None
