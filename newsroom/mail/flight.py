"""Mail on its way to the provider at this moment: who leaves is answered once theirs has been handed over.

So is who pauses, or gets it at another address.

A group of copies is begun with a commit and takes its time after it. A reader who leaves in between may still be
mailed, but never after the answer that says it is done (compliance.md R-25).
"""

import time
from collections.abc import Callable

from django.db import transaction

# A provider that hangs must not keep a reader who leaves waiting; mail programs give one-click a few seconds.
PATIENCE = 5.0
STEP = 0.02

# Says whether a copy for the reader of this id may be on its way now; asked often, so it has to be cheap.
IsInFlight = Callable[[int], bool]

_asked: dict[str, IsInFlight] = {}


def register(name: str, is_in_flight: IsInFlight) -> None:
    """State who hands mail over, from an app's `ready`; a second one of a name replaces the first."""
    _asked[name] = is_in_flight


def wait_after_commit(reader_id: int) -> None:
    """Let whoever ends or diverts a reader's mail in this transaction go on only when no copy is on its way."""
    transaction.on_commit(lambda: _wait(reader_id))


def _wait(reader_id: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while any(is_in_flight(reader_id) for is_in_flight in _asked.values()) and time.monotonic() < deadline:
        time.sleep(STEP)
