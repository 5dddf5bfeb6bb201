"""Whether mail may go at all: whoever knows a reason against it states it here, and while it holds none is claimed."""

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

# Asked before each claim, so it has to be cheap; returns a sentence for staff, or nothing.
Obstacle = Callable[[], str]

_obstacles: dict[str, Obstacle] = {}
_logged = ""


def register(name: str, obstacle: Obstacle) -> None:
    """State what may hold all mail, from an app's `ready`; a second one of a name replaces the first."""
    _obstacles[name] = obstacle


def find_obstacle() -> str:
    """Return why no mail may go now; empty if it may."""
    return next((reason for obstacle in _obstacles.values() if (reason := obstacle())), "")


def is_closed() -> bool:
    """Say whether mail is held now, and log why, once each time that changes."""
    global _logged
    reason = find_obstacle()
    if reason and reason != _logged:
        log.error("all mail is held: %s", reason)
    elif _logged and not reason:
        log.warning("mail is not held any more")
    _logged = reason
    return bool(reason)
