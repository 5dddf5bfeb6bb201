"""Mailgun's backend, writing what readers have in common but once, and of each reader only the own words."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Self

from anymail.backends import mailgun
from django.core.mail import EmailMessage
from urllib3.filepost import choose_boundary, encode_multipart_formdata

from newsroom.mail.payloads import Addressee, Copy, Filling, Form


class Payload(mailgun.MailgunPayload):
    """A form in parts: to percent-encode what is said of a thousand readers would cost more than to gather it."""

    def __init__(
        self, message: EmailMessage, defaults: dict[str, Any], backend: "EmailBackend", slots: Sequence[str]
    ) -> None:
        super().__init__(message, defaults, backend)
        fields = super().serialize_data()
        if self.files or fields.pop("to") != [slots[0]]:
            raise ValueError("More than a text for one reader.")
        # Without the braces of its dictionary, nobody's entry is one among others.
        self._entry = Form(fields.pop("recipient-variables")[1:-1], slots)
        boundary = choose_boundary()
        self._shared, self._type = encode_multipart_formdata(_flattened(fields), boundary)
        if any(slot.encode() in self._shared for slot in slots):
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
    model_class = Payload


def _flattened(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return a form's fields one by one; Anymail's have a list where there may be several of a name."""
    listed = {name: value if isinstance(value, list) else [value] for name, value in fields.items()}
    return [(name, value) for name, values in listed.items() for value in values]
