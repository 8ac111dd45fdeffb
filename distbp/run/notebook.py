"""A live card in a notebook, which is shown once and then updated in place."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from distbp.run import events

EVERY_S = 0.5  # the least time between two updates


def live_card(html: Callable[[], str]) -> AbstractContextManager[events.Listener] | None:
    """A listener that keeps a card up to date; None where this is not a notebook. `html`: the card as it
    is."""
    ipython = sys.modules.get("IPython")  # a notebook has imported it
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return _live(html)


@contextmanager
def _live(html: Callable[[], str]) -> Iterator[events.Listener]:
    from IPython.display import HTML, display

    shown: Any = display(HTML(html()), display_id=True)
    last = time.monotonic()

    def listen(event: events.Event) -> None:
        nonlocal last
        if isinstance(event, events.StateChanged) or time.monotonic() - last >= EVERY_S:
            shown.update(HTML(html()))
            last = time.monotonic()

    try:
        yield listen
    finally:
        shown.update(HTML(html()))
