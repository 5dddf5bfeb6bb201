"""What a provider is asked, written but once for all readers of a mail: their own words are joined in between.

To build a message, have it checked part by part and written as JSON is most of what a copy costs that goes out by HTTP.
Here Anymail does all that for one model, the copy of a reader whom there is not, and what it makes of that is cut where
this reader's words stand. Everything else of a call stays Anymail's.
"""

import logging
import re
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

from anymail.exceptions import AnymailError
from anymail.signals import post_send, pre_send
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

log = logging.getLogger(__name__)

# What every library writes as it stands.
_PLAIN_ADDRESS = re.compile(
    r"[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*@[a-z0-9-]+(?:\.[a-z0-9-]+)*", re.ASCII
)
# Printable ASCII without what would end a string of JSON or HTML, or be read there as something else: " & < > \\
_PLAIN_WORDS = re.compile(r"[ !#-%'-;=?-\[\]-~]*")


class Model(Protocol):
    """A payload of Anymail's that can be asked for the one of a copy."""

    def of_copy(self, message: "Copy") -> Any: ...


class Copy(EmailMessage):
    """A model's copies, each for a reader whose own words are given, without being built."""

    def __init__(self, model: Model, words: Sequence[Sequence[str]]) -> None:
        super().__init__(to=[address for address, *_others in words])
        self.model = model
        self.words = words


class Form:
    """Text cut at its slots."""

    def __init__(self, text: str, slots: Sequence[str]) -> None:
        pieces = re.split(f"({'|'.join(map(re.escape, slots))})", text)
        found = [slots.index(piece) for piece in pieces[1::2]]
        if set(found) != set(range(len(slots))):
            raise ValueError("A slot is missing.")
        self._pieces = [piece.encode() for piece in pieces]
        self._choose = itemgetter(*found)

    def fill(self, words: Sequence[str]) -> bytes:
        pieces = self._pieces.copy()
        pieces[1::2] = self._choose([word.encode() for word in words])
        return b"".join(pieces)


class Filling(BaseEmailBackend):
    """Mixed into one of Anymail's backends: sends copies of models as well as messages."""

    # Made with the arguments of Anymail's own, and the slots.
    model_class: type[Model]

    def build_message_payload(self, message: EmailMessage, defaults: dict[str, Any]) -> Any:
        if isinstance(message, Copy):
            return message.model.of_copy(message)
        return super().build_message_payload(message, defaults)  # type: ignore[misc]


class Addressee(NamedTuple):
    """As much of an address as Anymail asks for when it reads an answer."""

    addr_spec: str


def takes_copies(connection: BaseEmailBackend) -> bool:
    """Whether this connection sends copies of models. Who listens to Anymail's signals is to see whole messages."""
    return isinstance(connection, Filling) and not (pre_send.has_listeners() or post_send.has_listeners())


def make_model(message: EmailMessage, slots: Sequence[str], connection: Any) -> Model | None:
    """Return what copies are made of over a connection that takes them; None where they cannot be.

    `slots` are the words of the reader whom there is not, the address first, as they stand in `message`.
    """
    try:
        model: Model = connection.model_class(message, connection.send_defaults, connection, slots)
    except (AnymailError, TypeError, ValueError) as error:  # settings of Anymail's that nobody thought of
        log.info("copies are built one by one: %s", type(error).__name__)
        return None
    return model


def fits(words: Sequence[str]) -> bool:
    """Whether words may stand in place of a model's own; who has others gets a message built the long way."""
    address, *others = words
    return bool(_PLAIN_ADDRESS.fullmatch(address) and _PLAIN_WORDS.fullmatch("".join(others)))
