"""Hand one message over and say what became of it."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Outcome(StrEnum):
    ACCEPTED = "accepted"
    REFUSED = "refused"  # this message, definitely
    THROTTLED = "throttled"  # definitely not sent; the provider asks for patience
    NOT_SENT = "not_sent"  # definitely not sent; a fault
    DENIED = "denied"  # the provider does not let us in
    AMBIGUOUS = "ambiguous"  # may have been sent


@dataclass(frozen=True)
class Result:
    """What became of one hand-over. `detail` is a class name and a status at most: no address, no key."""

    outcome: Outcome
    detail: str
    provider_message_id: str = ""
    retry_after: timedelta | None = None
    recipients: dict[str, Outcome] | None = None
