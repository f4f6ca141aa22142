"""The grammar of identifiers, against the protocol's own test vectors and hypothesis."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from parity_dagster import identifiers
from parity_dagster.errors import InvalidIdentifier
from parity_dagster.identifiers import (
    AtUri,
    is_valid_did,
    is_valid_rkey,
    is_valid_tid,
    parse_account,
    parse_at_uri,
    parse_did,
    parse_handle,
    parse_nsid,
    parse_rkey,
    tid_time,
)

BOB = "did:plc:7iza6de2dwap2sbkpav7c6c6"


def vectors(name: str) -> list[str]:
    lines = (Path(__file__).parent / "syntax" / f"{name}.txt").read_text(encoding="utf-8").split("\n")
    cases = [line for line in lines if line and not line.startswith("# ")]
    return [re.sub(r"\{(.+?)\*(\d+)\}", lambda m: m[1] * int(m[2]), line) for line in cases]


def accepts(check: Callable[[str], object], text: str) -> bool:
    try:
        return bool(check(text))
    except InvalidIdentifier as exc:
        if "\n" in str(exc) or len(str(exc)) > 300:
            raise AssertionError("not a message of one short line") from exc
        return False


CHECKS: dict[str, Callable[[str], object]] = {
    "did": is_valid_did,
    "account_did": parse_did,
    "handle": parse_handle,
    "nsid": parse_nsid,
    "rkey": parse_rkey,
    "aturi": parse_at_uri,
    "tid": tid_time,
}


@pytest.mark.parametrize(("kind", "text"), [(k, t) for k in CHECKS for t in vectors(f"{k}_valid")])
def test_what_the_spec_calls_valid_is_accepted(kind: str, text: str) -> None:
    assert accepts(CHECKS[kind], text)


@pytest.mark.parametrize(("kind", "text"), [(k, t) for k in CHECKS for t in vectors(f"{k}_invalid")])
def test_what_the_spec_calls_invalid_is_refused(kind: str, text: str) -> None:
    assert not accepts(CHECKS[kind], text)


@pytest.mark.parametrize("kind", CHECKS)
@pytest.mark.parametrize("dirt", ["\n", "\r", "\0", "\t", "\u200b", "\ufeff", "\ud800", " "])
def test_no_identifier_ends_or_begins_with_dirt(kind: str, dirt: str) -> None:
    good = vectors(f"{kind}_valid")[0]
    assert not accepts(CHECKS[kind], good + dirt)
    assert not accepts(CHECKS[kind], dirt + good)
    assert not accepts(CHECKS[kind], good[:5] + dirt + good[5:])


@pytest.mark.parametrize(
    "did",
    [
        "did:web:localhost%3A1234",
        "did:web:localhost",
        "did:web:127.0.0.1%3A80",
        "did:web:pds.test",
        "did:web:a.com%3A1",
    ],
)
def test_a_did_web_with_a_port_is_for_private_networks_only(did: str) -> None:
    assert parse_did(did, allow_private=True) == did
    assert parse_account(did, allow_private=True) == did
    with pytest.raises(InvalidIdentifier):
        parse_did(did)


@pytest.mark.parametrize(
    "did",
    [
        "did:web:localhost%3A",
        "did:web:localhost%2Fx",
        "did:web:a.com:x",
        "did:web:localhost%3A0",
        "did:web:a%40b",
        "did:key:z1",
    ],
)
def test_private_networks_get_no_other_did_web_forms(did: str) -> None:
    with pytest.raises(InvalidIdentifier):
        parse_did(did, allow_private=True)


def test_an_account_is_a_did_or_a_handle_with_or_without_an_at_sign() -> None:
    assert parse_account(" @Alice.Bsky.Social\n") == "alice.bsky.social"
    assert parse_account("alice.bsky.social") == "alice.bsky.social"
    assert parse_account(f"@{BOB}") == BOB
    for wrong in (
        "",
        "@",
        "@@alice.bsky.social",
        "alice",
        "did:plc:short",
        "https://bsky.app/profile/alice.bsky.social",
    ):
        with pytest.raises(InvalidIdentifier):
            parse_account(wrong)


def test_the_error_names_the_input_on_one_line_and_shows_a_right_one() -> None:
    for check, example in (
        (parse_did, "did:plc:z72i7hdynmk6r22z27h6tvur"),
        (parse_handle, "alice.bsky.social"),
        (parse_account, "alice.bsky.social"),
        (parse_nsid, "app.bsky.feed.post"),
        (parse_rkey, "3jzfcijpj2z2a"),
        (parse_at_uri, "at://did:plc:"),
        (tid_time, "3jzfcijpj2z2a"),
    ):
        with pytest.raises(InvalidIdentifier) as caught:
            check("so\nwrong\x1b[31m" + "x" * 9000)
        message = str(caught.value)
        assert example in message
        assert "so\\nwrong\\x1b[31m" in message
        assert len(message) < 300
        assert message.replace("…", "").isascii()


def test_an_at_uri_is_split_and_normalised() -> None:
    assert parse_at_uri(f"at://{BOB}/app.bsky.feed.post/3jui7kd54zh2y") == AtUri(
        BOB, "app.bsky.feed.post", "3jui7kd54zh2y"
    )
    assert parse_at_uri("at://Alice.Test/App.Bsky.feed.Post") == AtUri("alice.test", "app.bsky.feed.Post", None)
    assert parse_at_uri(f"at://{BOB}") == AtUri(BOB, None, None)


def test_the_domain_part_of_an_nsid_is_lower_cased_and_its_name_is_not() -> None:
    assert parse_nsid("COM.Example.fooBar") == "com.example.fooBar"


def test_a_tid_tells_its_time() -> None:
    assert tid_time("2222222222222") == datetime(1970, 1, 1, tzinfo=UTC)
    assert tid_time("3jzfcijpj2z2a") == datetime(2023, 6, 30, 15, 3, 1, 887007, tzinfo=UTC)
    assert tid_time("jzzzzzzzzzzzz").year == 2540
    assert not is_valid_tid("")


@given(st.datetimes(datetime(1970, 1, 1), datetime(2255, 1, 1)), st.integers(0, 1023))  # noqa: DTZ001
def test_every_tid_made_from_a_time_gives_the_time_back(moment: datetime, clock: int) -> None:
    moment = moment.replace(tzinfo=UTC)
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution)
    number, tid = microseconds << 10 | clock, ""
    for _ in range(13):
        number, digit = divmod(number, 32)
        tid = "234567abcdefghijklmnopqrstuvwxyz"[digit] + tid
    assert is_valid_tid(tid)
    assert tid_time(tid) == moment


@given(st.text(max_size=20) | st.text(string.ascii_letters + string.digits + "._:~-/% ", max_size=20))
def test_a_record_key_is_exactly_what_the_spec_says(text: str) -> None:
    allowed = set(string.ascii_letters + string.digits + "._:~-")
    expected = 1 <= len(text) <= 512 and set(text) <= allowed and text not in (".", "..")
    assert is_valid_rkey(text) is expected


@given(st.text(max_size=60))
def test_no_text_makes_a_parser_raise_anything_but_invalid_identifier(text: str) -> None:
    for check in (*CHECKS.values(), parse_account):
        for prefix in ("", "did:web:", "did:plc:", "at://"):
            accepts(check, prefix + text)


def test_identifiers_need_no_other_package() -> None:
    source = Path(identifiers.__file__).read_text(encoding="utf-8")
    imported = set(re.findall(r"^(?:from|import) ([\w.]+)", source, re.MULTILINE))
    assert imported == {"__future__", "re", "datetime", "typing", "parity_dagster.errors"}
