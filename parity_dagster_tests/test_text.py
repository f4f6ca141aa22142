"""A stranger's text, wherever it is shown, stays on its line and does nothing."""

from __future__ import annotations

from hypothesis import given, strategies as st

from parity_dagster.text import escaped, one_line, storable


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_is_written_prints_and_can_be_told_apart(text: str) -> None:
    shown = escaped(text)
    assert shown.isprintable()
    if "\\" not in text:
        assert shown.encode("latin-1", "backslashreplace").decode("unicode_escape") == text


@given(st.text(st.characters(exclude_categories=())), st.integers(1, 50))
def test_one_line_is_one_line_and_no_longer_than_it_may_be(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert line.isprintable()
    assert len(line) <= limit
    assert "  " not in line


def test_what_is_made_for_reading_reads_well() -> None:
    assert one_line("could not\n\t  connect\u3000to\u00a0it ") == "could not connect to it"
    assert one_line("red \x1b[31m, back \u202eward, half \ud83d") == "red \\x1b[31m, back \\u202eward, half \\ud83d"
    assert one_line("x" * 10, 5) == "xxxx…"


@given(st.text(st.characters(exclude_categories=())))
def test_what_is_stored_can_be_stored(text: str) -> None:
    assert b"\x00" not in storable(text).encode("utf-8")
