"""No password in anything that is shown or kept; strangers' texts are made harmless."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

import pytest

from parity_dagster.errors import ParityError
from parity_dagster.events import ImportEvent
from parity_dagster.models import Pair
from parity_dagster.sample_network import POST, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings, load_settings
from parity_dagster_tests.imports import importing, query, settings_for

PASSWORD = "s3cr3t-Pa%2Fss"
HOSTILE = "bad\x1b[31m\r\nINFO  parity all is well\x07\x00‮‏" + "x" * 100_000


@pytest.fixture
def secret_settings(settings: Settings) -> Iterator[Settings]:
    """The test's database, reached by a role that has this password, whether the server asks for it or not."""
    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    parts = urlsplit(url)
    role = f"parity_test_{uuid.uuid4().hex[:16]}"
    host = parts.netloc.rpartition("@")[2]
    secret = url.replace(f"//{parts.netloc}", f"//{role}:{PASSWORD}@{host}", 1)
    query(settings, f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{unquote(PASSWORD)}'")
    yield settings.model_copy(update={"database_url": load_settings(database_url=secret).database_url})
    query(settings, f"DROP ROLE {role}")


def test_a_password_is_in_no_event_log_state_or_error(
    secret_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    network = SampleNetwork()
    did = network.add_account({POST: 30})
    broken = network.add_account({POST: 30})
    network.behave(did=broken, faults=[{"kind": "503", "method": "listRecords", "skip": 1}])
    events: list[ImportEvent] = []
    texts: list[str] = []
    with run_in_thread(network) as running:
        settings = settings_for(secret_settings, running, page_size=10)
        texts.append(repr(settings) + str(settings) + settings.model_dump_json())

        def drop(event: ImportEvent) -> None:
            events.append(event)
            if len(events) == 3:
                query(
                    secret_settings,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                    " AND application_name = 'parity_dagster' AND datname = current_database()",
                )

        with ImportService(settings, report=False) as service:
            results = service.import_pairs([Pair(did, POST), Pair(broken, POST)], on_event=drop)
            texts += [repr(results), repr(service.find_states()), repr(service)]
    texts += [repr(events), caplog.text]
    texts += [str(row) for row in query(secret_settings, "SELECT s FROM parity_import_states s")]
    for text in texts:
        assert "s3cr3t" not in text


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:{}@127.0.0.1:9/none",
        "postgresql://127.0.0.1:9/none?user=me&password={}",
        "postgresql://me:{}@[::1]:9/none?connect_timeout=1",
        "postgresql://me:{}@nowhere.invalid/none",
        "mysql://me:{}@127.0.0.1/none",
        "postgresql://me:{}@127.0.0.1:port/none",
    ],
)
def test_no_error_about_the_database_shows_its_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = load_settings(database_url=url.format(PASSWORD))
    service = ImportService(settings, report=False)
    with pytest.raises(ParityError) as caught:
        service.import_user("did:plc:" + "a" * 24)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert "s3cr3t" not in str(chain)
        chain = chain.__cause__
    assert "s3cr3t" not in caplog.text
    assert caught.value.code in ("database_unreachable", "invalid_settings")


@pytest.mark.parametrize("kind", ["400", "404", "503", "502"])
def test_texts_of_servers_are_capped_and_without_control_characters(settings: Settings, kind: str) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    network.behave(host="pds-1", faults=[{"kind": kind, "method": "listRecords", "message": HOSTILE}])
    with importing(settings, network) as (service, _):
        result = service.import_user_collection(did, POST)
        state = service.get_status(did, POST)
    assert result.error
    assert state is not None
    assert state.error == result.error
    assert len(result.error) <= 500
    assert result.error.isprintable(), "one line, no escape sequences, no change of direction"


@pytest.mark.parametrize("odd", ["uri-with-spaces", "wrong-authority", "bad-rkey"])
def test_reasons_of_failed_records_are_one_printable_line(settings: Settings, odd: str) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    network.add_odd(did, POST, [odd])
    evil = b'{"uri":"at://evil\\u001b[31m\\r\\n\\u202e%b","value":{}}' % (b"x" * 5000)
    with network.lock:
        record = next(iter(network.accounts[did].repo.writable(POST).own.values()))
        record.entry = evil
    with importing(settings, network) as (service, _):
        service.import_user_collection(did, POST)
        (failed,) = service.find_failed_records()
    assert failed.body == evil
    assert failed.detail.isprintable()
    assert len(failed.detail) <= 500


def test_a_did_document_cannot_write_into_the_log(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    for document in (
        {"id": HOSTILE[:5000]},
        {
            "id": did,
            "service": [{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": HOSTILE[:5000]}],
        },
    ):
        network.set_document(did, document)
        with importing(settings, network) as (service, _):
            result = service.import_user_collection(did, POST)
            service.reset(did, POST)
        assert result.error
        assert result.error.isprintable()
        assert len(result.error) <= 500
    assert "\x1b" not in caplog.text
    assert "\nINFO  parity all is well" not in caplog.text


def test_refused_arguments_are_capped_and_printable(settings: Settings) -> None:
    with importing(settings, SampleNetwork()) as (service, _):
        for name in (HOSTILE, "did:plc:" + HOSTILE):
            result = service.import_user(name)
            assert result.error_code == "invalid_identifier"
            assert (result.error or "").isprintable()
            assert len(result.error or "") <= 500
