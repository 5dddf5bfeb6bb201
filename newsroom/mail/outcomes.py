"""What can become of a message that was handed over."""

from dataclasses import dataclass, field
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
    """What became of one hand-over.

    `detail` is a class name and a status at most: no address, no key. `recipients` says for each address of a message
    to several what became of it; None means that all share the outcome. `is_general` means that the fault lies with
    the provider or the way to it, so that the next message would meet it too.
    """

    outcome: Outcome
    detail: str
    provider_message_id: str = ""
    retry_after: timedelta | None = None
    recipients: dict[str, Outcome] | None = field(default=None, repr=False)
    is_general: bool = False
