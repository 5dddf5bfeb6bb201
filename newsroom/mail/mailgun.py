"""Mailgun's backend, writing what readers have in common but once, and of each reader only the own words."""

from collections.abc import Sequence
from copy import copy
from typing import Any, Self

from anymail.backends import mailgun
from urllib3.filepost import choose_boundary, encode_multipart_formdata

from newsroom.mail.payloads import Addressee, Copy, Filling, Form, Model


class Payload(mailgun.MailgunPayload):
    """A form in parts: to percent-encode what is said of a thousand readers would cost more than to gather it."""

    def __init__(self, model: Model, defaults: dict[str, Any], backend: Any) -> None:
        super().__init__(model.message, defaults, backend)
        fields = super().serialize_data()
        del fields["to"]
        # Without the braces of its dictionary, nobody's entry is one among others.
        self._entry = Form(fields.pop("recipient-variables")[1:-1], model.slots)
        shared = [(name, value) for name, values in fields.items() for value in _listed(values)]
        boundary = choose_boundary()
        self._shared, self._type = encode_multipart_formdata(shared, boundary)
        if any(slot.encode() in self._shared for slot in model.slots):
            raise ValueError("One reader's own words would go to all.")
        self._head = f'--{boundary}\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'

    def of_copy(self, message: Copy) -> Self:
        own = copy(self)
        own.all_recipients = [Addressee(address) for address in message.to]
        own.headers = {"Content-Type": self._type}
        own.body = b"".join(
            [
                self._addressees(message.to),
                (self._head % "recipient-variables").encode(),
                b"{" + b", ".join([self._entry.fill(words) for words in message.words]) + b"}\r\n",
                self._shared,
            ]
        )
        return own

    def serialize_data(self) -> bytes:
        return self.body

    def _addressees(self, addresses: Sequence[str]) -> bytes:
        head = self._head % "to"
        return "".join([f"{head}{address}\r\n" for address in addresses]).encode()


class EmailBackend(Filling, mailgun.EmailBackend):
    payload_class = Payload


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]
