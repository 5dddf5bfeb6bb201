"""Postmark's backend, writing what readers have in common but once."""

from collections.abc import Sequence
from copy import copy
from typing import Any, Self

from anymail.backends import postmark
from django.core.mail import EmailMessage

from newsroom.mail.payloads import Addressee, Copy, Filling, Form


class Payload(postmark.PostmarkPayload):
    def __init__(
        self, message: EmailMessage, defaults: dict[str, Any], backend: "EmailBackend", slots: Sequence[str]
    ) -> None:
        super().__init__(message, defaults, backend)
        if self.get_api_endpoint() != "email":
            raise ValueError("Not one mail of its own for each reader.")
        self._form = Form(super().serialize_data(), slots)

    def of_copy(self, message: Copy) -> Self:
        (words,) = message.words
        own = copy(self)
        own.to_emails = [Addressee(words[0])]
        own.headers = self.headers.copy()  # Anymail puts the key in
        own.body = self._form.fill(words)
        return own

    def serialize_data(self) -> bytes:
        return self.body


class EmailBackend(Filling, postmark.EmailBackend):
    model_class = Payload
