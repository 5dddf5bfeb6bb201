"""Settings that would leak, stay silent or send twice are refused by name."""

from datetime import timedelta
from typing import Any

import pytest

from newsroom.mail.checks import check_mail

SMTP = "django.core.mail.backends.smtp.EmailBackend"
POSTMARK = "anymail.backends.postmark.EmailBackend"
KEYS = {
    "POSTMARK_SERVER_TOKEN": "geheim", "MAILJET_API_KEY": "geheim", "MAILJET_SECRET_KEY": "geheim",
    "SPARKPOST_API_KEY": "geheim", "BREVO_API_KEY": "geheim", "MAILERSEND_API_TOKEN": "geheim",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _sound(settings: Any) -> None:
    settings.DEBUG = settings.DEMO = False
    settings.DEFAULT_FROM_EMAIL = "Wochenblitz <newsletter@wochenblitz.de>"
    settings.EMAIL_BACKEND = SMTP
    settings.EMAIL_TIMEOUT = 25
    settings.EMAIL_USE_TLS, settings.EMAIL_USE_SSL = True, False
    settings.EMAIL_HOST = "mail.wochenblitz.de"
    settings.ANYMAIL = {"REQUESTS_TIMEOUT": (5, 25), **KEYS}


def found() -> set[str | None]:
    return {message.id for message in check_mail()}


@pytest.mark.parametrize("backend", [SMTP, POSTMARK])
def test_sound_settings_pass(backend: str, settings: Any) -> None:
    settings.EMAIL_BACKEND = backend

    assert found() == set()


@pytest.mark.parametrize(
    ("changes", "id"),
    [
        ({"DEFAULT_FROM_EMAIL": "Wochenblitz"}, "mail.E001"),
        ({"DEFAULT_FROM_EMAIL": ""}, "mail.E001"),
        ({"DEFAULT_FROM_EMAIL": "a@wochenblitz.de, b@wochenblitz.de"}, "mail.E001"),
        ({"DEFAULT_FROM_EMAIL": "a@localhost"}, "mail.E001"),
        ({"DEFAULT_FROM_EMAIL": "a@wochenblitz.example"}, "mail.W005"),
        ({"DEFAULT_FROM_EMAIL": "a@news.example.com"}, "mail.W005"),
        ({"DEFAULT_FROM_EMAIL": "NoReply@wochenblitz.de"}, "mail.W001"),
        ({"EMAIL_BACKEND": "no.such.Backend"}, "mail.E003"),
        ({"EMAIL_BACKEND": POSTMARK, "ANYMAIL": {"REQUESTS_TIMEOUT": 20}}, "mail.E003"),
        ({"EMAIL_BACKEND": "anymail.backends.mailjet.EmailBackend"}, "mail.E004"),
        ({"EMAIL_BACKEND": "anymail.backends.sparkpost.EmailBackend"}, "mail.E004"),
        ({"EMAIL_BACKEND": "anymail.backends.brevo.EmailBackend"}, "mail.W002"),
        ({"EMAIL_BACKEND": "anymail.backends.mailersend.EmailBackend"}, "mail.W002"),
        ({"EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend"}, "mail.W003"),
        ({"ANYMAIL": {"DEBUG_API_REQUESTS": True}}, "mail.E005"),
        ({"ANYMAIL_DEBUG_API_REQUESTS": True}, "mail.E005"),
        ({"ANYMAIL": {"IGNORE_UNSUPPORTED_FEATURES": True}}, "mail.E006"),
        ({"ANYMAIL": {"POSTMARK_USE_BULK_API": True}}, "mail.E007"),
        ({"EMAIL_TIMEOUT": None}, "mail.E009"),
        ({"EMAIL_TIMEOUT": 60}, "mail.E009"),
        ({"DELIVERY_LEASE": timedelta(seconds=30)}, "mail.E009"),
        ({"EMAIL_BACKEND": POSTMARK, "ANYMAIL": {**KEYS, "REQUESTS_TIMEOUT": "30"}}, "mail.E010"),
        ({"EMAIL_BACKEND": POSTMARK, "ANYMAIL": {**KEYS, "REQUESTS_TIMEOUT": [5, 25]}}, "mail.E010"),
        ({"EMAIL_BACKEND": POSTMARK, "ANYMAIL": {**KEYS, "REQUESTS_TIMEOUT": 60}}, "mail.E010"),
        ({"EMAIL_USE_SSL": True}, "mail.E011"),
        ({"EMAIL_USE_TLS": False}, "mail.W004"),
    ],
)
def test_each_mistake_is_named(changes: dict[str, Any], id: str, settings: Any) -> None:
    for name, value in changes.items():
        setattr(settings, name, value)

    assert id in found()


def test_amazons_client_must_not_repeat_calls(settings: Any) -> None:
    settings.EMAIL_BACKEND = "anymail.backends.amazon_ses.EmailBackend"
    assert "mail.E008" in found()

    retries = {"retries": {"total_max_attempts": 1}}
    settings.ANYMAIL = {"REQUESTS_TIMEOUT": 20, "AMAZON_SES_CLIENT_PARAMS": {"config": retries}}
    assert "mail.E008" not in found()


def test_a_placeholder_is_fine_while_trying_out(settings: Any) -> None:
    settings.DEBUG = True
    settings.DEFAULT_FROM_EMAIL = "Wochenblitz <newsletter@wochenblitz.example>"
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"

    assert found() == set()


def test_no_check_quotes_a_key(settings: Any) -> None:
    settings.EMAIL_BACKEND = "anymail.backends.mailjet.EmailBackend"
    settings.ANYMAIL = {**KEYS, "DEBUG_API_REQUESTS": True, "REQUESTS_TIMEOUT": "geheim"}

    assert "geheim" not in " ".join(f"{message.msg} {message.hint}" for message in check_mail())
