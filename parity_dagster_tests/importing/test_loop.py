"""Work on the background loop ends for whoever waits for it, whenever it is stopped."""

from __future__ import annotations

import asyncio
import threading

import pytest

from parity_dagster.errors import Interrupted
from parity_dagster.importing.loop import BackgroundLoop


def test_what_is_stopped_before_its_first_step_has_ended() -> None:
    loop = BackgroundLoop(lambda: None)
    is_busy, go_on, has_ended = threading.Event(), threading.Event(), threading.Event()

    async def keep_busy(_: None) -> None:
        is_busy.set()
        go_on.wait()

    async def wait(_: None) -> None:
        await asyncio.sleep(3600)

    first = loop.start(keep_busy)
    is_busy.wait()
    second = loop.start(wait, has_ended.set)
    threading.Timer(0.1, go_on.set).start()  # begun and stopped in one turn of the loop, which is busy until then
    second.stop()
    assert has_ended.is_set()
    with pytest.raises(Interrupted):
        second.result()
    first.result()
    loop.close()


def test_work_that_wants_the_process_to_end_while_it_is_stopped_keeps_nothing_open() -> None:
    is_begun, is_closed = threading.Event(), threading.Event()

    async def close(_: None) -> None:
        is_closed.set()

    async def wait(_: None) -> None:
        is_begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise SystemExit from None

    loop = BackgroundLoop(lambda: None, close)
    running = loop.start(wait)
    is_begun.wait()
    loop.close()
    assert is_closed.is_set()
    with pytest.raises(SystemExit):
        running.result()
