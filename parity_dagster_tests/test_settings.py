"""Settings are checked at the start, and an error names the variable and what it accepts."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from parity_dagster.errors import SettingsError
from parity_dagster.settings import DEFAULT_COLLECTIONS, Settings, load_settings

README = Path(__file__).parents[1] / "README.md"


def test_the_missions_defaults_hold_without_any_variable():
    settings = load_settings()
    assert (settings.page_size, settings.page_delay) == (100, 100)
    assert (settings.queue, settings.state_table) == ("parity-import", "parity_import_states")
    assert settings.collections == DEFAULT_COLLECTIONS
    assert settings.plc_url == "https://plc.directory"
    assert settings.relay_url == "https://relay1.us-east.bsky.network"
    assert not settings.allow_private_hosts


def test_the_environment_is_read_again_only_when_it_has_changed(monkeypatch: pytest.MonkeyPatch):
    before = load_settings()
    assert load_settings() is before
    monkeypatch.setenv("PARITY_PAGE_SIZE", "7")
    assert load_settings().page_size == 7
    monkeypatch.setenv("parity_page_size", "8")
    monkeypatch.delenv("PARITY_PAGE_SIZE")
    assert load_settings().page_size == 8
    monkeypatch.setenv("parity_page_size", "none")
    with pytest.raises(SettingsError):
        load_settings()
    monkeypatch.delenv("parity_page_size")
    assert load_settings() is before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PAGE_SIZE", "0"),
        ("PAGE_SIZE", "101"),
        ("PAGE_SIZE", "many"),
        ("PAGE_DELAY", "-1"),
        ("QUEUE", "with space"),
        ("STATE_TABLE", 'states"; DROP TABLE x'),
        ("COLLECTIONS", "not an nsid"),
        ("COLLECTIONS", " , "),
        ("PLC_URL", "plc.directory"),
        ("PLC_URL", "ftp://plc.directory"),
        ("PLC_URL", "https://"),
        ("PLC_URL", "https://plc.directory,plc.example.com"),
        ("PLC_URL", "https://plc.directory,"),
        ("PLC_RATE", "0"),
        ("WRITERS", "0"),
        ("REFRESH_EVERY", "7"),
        ("REFRESH_EVERY", "weekly"),
        ("REFRESH_EVERY", "59s"),
        ("REFRESH_EVERY", "999999w"),
    ],
)
def test_a_wrong_value_is_refused_by_its_variables_name(monkeypatch, name, value):
    monkeypatch.setenv(f"PARITY_{name}", value)
    with pytest.raises(SettingsError, match=f"PARITY_{name}") as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("PARITY_PLC_URL", "")
    monkeypatch.setenv("PARITY_DATABASE_URL", "")
    settings = load_settings()
    assert settings.plc_url == "https://plc.directory"
    assert settings.database_url is None


def test_collections_are_a_list_with_commas_each_once(monkeypatch):
    monkeypatch.setenv("PARITY_COLLECTIONS", "app.bsky.feed.post, com.example.note ,app.bsky.feed.post,")
    assert load_settings().collections == ("app.bsky.feed.post", "com.example.note")


def test_mirrors_of_the_directory_are_a_list_with_commas_each_once(monkeypatch):
    monkeypatch.setenv("PARITY_PLC_URL", "https://plc.directory/, https://plc.example.com ,https://plc.directory")
    assert load_settings().plc_urls == ("https://plc.directory", "https://plc.example.com")


@pytest.mark.parametrize(("value", "hours"), [("7d", 168), ("12h", 12), ("90m", 1.5), (" 1 W", 168)])
def test_an_age_is_a_number_and_a_unit(monkeypatch, value, hours):
    assert load_settings().refresh_every is None
    monkeypatch.setenv("PARITY_REFRESH_EVERY", value)
    assert load_settings().refresh_every == timedelta(hours=hours)


def test_a_password_does_not_show_in_the_settings(monkeypatch):
    monkeypatch.setenv("PARITY_DATABASE_URL", "postgresql://user:hunter2@db/x")
    assert "hunter2" not in repr(load_settings())


def test_the_readme_explains_every_setting_and_no_other():
    table = {line.split("`")[1] for line in README.read_text().splitlines() if line.startswith("| `PARITY_")}
    assert table == {f"PARITY_{name.upper()}" for name in Settings.model_fields}
