"""What holds for all apps of the project, checked whenever a command starts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.db import models

from newsroom import persons

# What may hold words about a person; files and slugs are texts by inheritance.
TEXTUAL = (models.CharField, models.TextField, models.JSONField, models.BinaryField, models.FileField)


@register()
def check_every_text_is_accounted_for(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Where a text may stand, an address may stand: export and erasure have to know of it."""
    known = persons.registered_models()
    return [
        Error(
            f"{model._meta.label} has text columns and is not registered, neither as holding personal data nor as not.",
            hint="Add it to a `persons.Holding`, or state the reason with `persons.register_without`.",
            obj=model,
            id="newsroom.E001",
        )
        for model in _local_models()
        if model._meta.label not in known and any(isinstance(field, TEXTUAL) for field in model._meta.local_fields)
    ]


def _local_models() -> Iterator[type[models.Model]]:
    for config in apps.get_app_configs():
        if Path(config.path).is_relative_to(settings.BASE_DIR) and "site-packages" not in Path(config.path).parts:
            yield from config.get_models(include_auto_created=True)
