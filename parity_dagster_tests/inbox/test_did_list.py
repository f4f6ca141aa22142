"""What a list of accounts may look like: every odd file has one defined outcome."""

import io
import time
import tracemalloc

import pytest
from hypothesis import given, strategies as st

from parity_dagster.inbox.did_list import MAX_LINE_BYTES, ListLine, ListPosition, read_did_list

ALICE = "did:plc:z72i7hdynmk6r22z27h6tvur"
BOB = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"


def read(data: bytes, allow_private: bool = False) -> list[ListLine]:
    return list(read_did_list(io.BytesIO(data), allow_private=allow_private))


def accounts(data: bytes, allow_private: bool = False) -> list[tuple[int, str]]:
    return [(line.number, line.account) for line in read(data, allow_private=allow_private) if line.account]


def problems(data: bytes) -> list[tuple[int, str]]:
    return [(line.number, line.problem) for line in read(data) if line.problem]


@pytest.mark.parametrize(
    "text",
    [
        f"{ALICE}\n{BOB}\n",
        f"{ALICE}\n{BOB}",
        f"{ALICE}\r\n{BOB}\r\n",
        f"\n\n{ALICE}\n\t \n  {BOB}\t\n\n",
        f"# people\n{ALICE} # the first\n#{ALICE}\n{BOB}\t#second\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-mark", "utf-16-be-mark"])
def test_ends_of_lines_blanks_comments_and_encodings_do_not_matter(text, encoding):
    if encoding.endswith("-mark"):
        encoding = encoding.removesuffix("-mark")
        text = "\ufeff" + text
    assert [account for _, account in accounts(text.encode(encoding))] == [ALICE, BOB]
    assert problems(text.encode(encoding)) == []


def test_an_invalid_line_is_reported_with_its_number_and_costs_only_itself():
    data = f"{ALICE}\n\ndid:plc:short\n# c\nnot an account\n{BOB}\n".encode()
    assert accounts(data) == [(1, ALICE), (6, BOB)]
    (first, why), (second, why_second) = problems(data)
    assert (first, second) == (3, 5)
    assert "did:plc:short" in why
    assert "24 characters" in why
    assert "one account per line" in why_second


def test_handles_are_accepted_with_and_without_an_at_sign_and_lower_cased():
    assert accounts(b"@Alice.bsky.social\nBOB.example.com\n") == [
        (1, "alice.bsky.social"),
        (2, "bob.example.com"),
    ]


def test_a_duplicate_is_yielded_again_because_only_the_caller_knows_what_it_has():
    assert accounts(f"{ALICE}\n{ALICE}\n".encode()) == [(1, ALICE), (2, ALICE)]


def test_did_web_of_a_private_host_needs_to_be_allowed():
    data = b"did:web:localhost%3A2583\n"
    assert accounts(data) == []
    assert accounts(data, allow_private=True) == [(1, "did:web:localhost%3A2583")]


def test_bytes_that_are_no_text_cost_their_own_line():
    data = b"\xff\xc3(\n" + ALICE.encode() + b"\n\x00\x01\x1b[31m\n" + BOB.encode()
    assert accounts(data) == [(2, ALICE), (4, BOB)]
    (first, why), (third, why_third) = problems(data)
    assert (first, third) == (1, 3)
    assert "is not UTF-8 text (byte 1)" in why
    assert "\\x1b[31m" in why_third


def test_no_problem_carries_a_control_character_to_the_terminal():
    hostile = bytes(range(32)).replace(b"\n", b"") + b"\x7f \xc2\x9b31m \xe2\x80\xae"
    for _, problem in problems(b"a" + hostile + b"\n" + hostile + b"z\n" + b"did:plc:\x1b]0;x\x07\n"):
        assert problem.isprintable()


def test_old_mac_line_ends_are_named_as_the_problem():
    ((number, problem),) = problems(f"{ALICE}\r{BOB}\r".encode())
    assert number == 1
    assert "not CR alone" in problem


@pytest.mark.parametrize("length", [MAX_LINE_BYTES + 1, 70_000, 300_001])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_an_over_long_line_is_one_problem_and_the_next_line_is_read(length, encoding):
    data = f"{ALICE}\n{'a' * length}\n{BOB}\n".encode(encoding)
    assert accounts(data) == [(1, ALICE), (3, BOB)]
    ((number, problem),) = problems(data)
    assert number == 2
    assert "8,192 bytes" in problem


def test_an_over_long_last_line_is_one_problem():
    assert [number for number, _ in problems(b"a" * 200_000)] == [1]


def test_the_longest_did_with_a_comment_fits_in_utf_16():
    handle = ".".join(["a" * 60] * 3 + ["com"])
    text = f"{handle} # {'x' * 3800}\n"
    assert accounts(text.encode("utf-16")) == [(1, handle)]


def test_a_character_whose_bytes_look_like_a_line_end_splits_no_line_in_utf_16():
    # U+0A00 then U+000A in big endian, U+010A in little endian: the byte 0x0A in the wrong half
    for encoding in ("utf-16-le", "utf-16-be"):
        data = f"\ufeff# \u0a00\u0a0a\u010a\u000b\n{ALICE}\n".encode(encoding)
        assert accounts(data) == [(2, ALICE)]
        assert problems(data) == []


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\n", b"\r\n", b"# nothing"])
def test_an_empty_file_holds_no_account_and_no_problem(data):
    assert accounts(data) == []
    assert problems(data) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_reading_can_go_on_from_any_line_as_if_it_had_never_stopped(encoding):
    text = f"{ALICE}\r\n\nwrong one\n{'x' * 150_000}\n{BOB} # x\n# end\nalice.example.com"
    data = text.encode(encoding)
    whole = read(data)

    def told(lines: list[ListLine]) -> list[tuple[object, ...]]:
        return [line[:3] for line in lines if line.account or line.problem]

    for cut, line in enumerate(whole, start=1):
        stream = io.BytesIO(data)
        stream.seek(line.end.offset)
        position = ListPosition(*line.end)  # as it comes back from JSON
        assert told(list(read_did_list(stream, position))) == told(whole[cut:])
    assert whole[-1].end.offset == len(data)


@given(st.binary(max_size=400))
def test_no_bytes_whatever_stop_the_reader(data):
    lines = read(data)
    if lines:
        assert lines[-1].end.offset == len(data)
    for line in lines:
        assert line.problem is None or line.problem.isprintable()
        assert not (line.account and line.problem)


@pytest.mark.long
def test_memory_does_not_grow_with_the_file():
    class Endless(io.RawIOBase):
        """A file that is never in memory: 40,000 accounts, then 10 MB without a line end."""

        blocks = 0

        def read(self, size: int = -1) -> bytes:
            self.blocks += 1
            if self.blocks <= 20:
                return b"".join([ALICE.encode() + b"\n"] * 2000)
            return b"x" * 50_000 if self.blocks <= 220 else b""

    tracemalloc.start()
    try:
        count = sum(line.account is not None for line in read_did_list(Endless()))  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 40_000
    assert peak < 600_000


@pytest.mark.long
def test_a_hundred_thousand_lines_are_read_in_under_two_seconds():
    data = (ALICE.encode() + b"\n") * 100_000
    began = time.process_time()
    assert len(accounts(data)) == 100_000
    assert time.process_time() - began < 2
