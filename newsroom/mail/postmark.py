"""Postmark's backend, writing what readers have in common but once."""

from copy import copy
from typing import Any, Self

from anymail.backends import postmark

from newsroom.mail.payloads import Addressee, Copy, Filling, Form, Model


class Payload(postmark.PostmarkPayload):
    def __init__(self, model: Model, defaults: dict[str, Any], backend: Any) -> None:
        super().__init__(model.message, defaults, backend)
        self._form = Form(super().serialize_data(), model.slots)

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
    payload_class = Payload
