from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import connections

from subscriptions import ledger
from subscriptions.models import ConsentRecord


@register(Tags.database)
def check_ledger_is_guarded(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """A migration that rebuilds a table on SQLite drops its triggers without a word."""
    if "default" not in (databases or ()) or not _is_migrated():
        return []
    return [
        Error(
            f"The trigger {name} is missing: the database would let consent records be changed.",
            hint="Find out who removed it, run `manage.py guard_ledger`, then `manage.py audit`.",
            id="subscriptions.E001",
        )
        for name in ledger.missing_triggers()
    ]


def _is_migrated() -> bool:
    return ConsentRecord._meta.db_table in connections["default"].introspection.table_names()
