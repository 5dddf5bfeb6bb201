"""A service mail of no app, made as all are."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.test import override_settings

from newsroom.mail.messages import make_message

URL = "http://localhost:8000/newsletter/bestaetigen/abcdefghijklmnopqrstuvwxyz0123456789/"


def make_service_mail(to: str = "leserin@leser.example", **values: Any) -> EmailMultiAlternatives:
    context = {"name": "Frau Müller & Söhne", "url": URL} | values.pop("context", {})
    engine = {**settings.TEMPLATES[0], "DIRS": [*settings.TEMPLATES[0]["DIRS"], Path(__file__).parent / "templates"]}
    with override_settings(TEMPLATES=[engine]):
        return make_message("example/greeting", to=to, context=context, language="de", **values)
