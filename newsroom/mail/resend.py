"""Resend's backend, handing on the key of a mail that may have to be repeated."""

from typing import Any

from anymail.backends import resend
from django.core.mail import EmailMessage


class EmailBackend(resend.EmailBackend):
    def build_message_payload(self, message: EmailMessage, defaults: dict[str, Any]) -> Any:
        payload = super().build_message_payload(message, defaults)
        if key := getattr(message, "idempotency_key", ""):
            payload.headers["Idempotency-Key"] = key
        return payload
