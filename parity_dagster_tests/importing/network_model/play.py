"""Playing histories: a seed decides what happens, so that a failure can be played again."""

from __future__ import annotations

import random
from collections.abc import Collection

from parity_dagster.settings import Settings
from parity_dagster_tests.importing.network_model.moves import MOVES, Figures, History

SHOWN_MOVES = 60


def play(settings: Settings, seed: int, moves: int, figures: Figures, only: Collection[int] = ()) -> None:
    """Play one history.

    Every move has dice of its own, so that leaving others out does not change what it does.

    Args:
        settings: with a database of its own.
        seed: decides everything but the timing.
        moves: how many.
        figures: added to.
        only: numbers of the moves to make, to look for the few that a failure takes; all if empty.

    Raises:
        AssertionError: something did not hold; its notes say when.
    """
    history = History(settings, random.Random(f"{seed}"), figures)
    names = random.Random(f"{seed}/moves").choices(list(MOVES), list(MOVES.values()), k=moves)
    trace: list[str] = []
    try:
        with history.stack, history:
            for number, name in enumerate(names, 1):
                if only and number not in only:
                    continue
                trace.append(f"{number} {name}")
                rng = random.Random(f"{seed}/{number}")
                history.change(rng)
                getattr(history, name)(rng)
                figures.moves += 1
                history.oracle.look()
            trace.append("the end")
            history.finish(random.Random(f"{seed}/end"))
            history.oracle.look()
    except BaseException as exc:
        exc.add_note(f"history {seed} ({history}) after {figures}: {', '.join(trace[-SHOWN_MOVES:])}")
        raise
    figures.histories += 1
