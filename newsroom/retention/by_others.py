"""What the operator's own machines keep, which no purge of ours reaches, and the record of the purge itself."""

from datetime import datetime

from django.conf import settings
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from newsroom import retention
from newsroom.retention import Rule
from newsroom.retention.models import PurgeRun
from newsroom.retention.rows import Rows
from newsroom.templatetags.periods import period


def register() -> None:
    retention.register(SERVER_LOGS, BACKUPS, PURGE_RUNS)


def _of_backups() -> str:
    return _("%(period)s; deleted data may still be there that long") % {"period": period(settings.BACKUP_RETENTION)}


def _old_runs(now: datetime) -> QuerySet:
    return PurgeRun.objects.filter(started_at__lte=now - settings.PURGE_RUN_RETENTION)


SERVER_LOGS = Rule(
    name="server_logs",
    what=gettext_lazy("Server logs"),
    period=lambda: period(settings.LOG_RETENTION),
    since=gettext_lazy("the request"),
    basis=gettext_lazy("GDPR Art. 6(1)(f)"),
)
BACKUPS = Rule(
    name="backups",
    what=gettext_lazy("Backups"),
    period=_of_backups,
    since=gettext_lazy("the backup"),
    basis=gettext_lazy("GDPR Art. 6(1)(f), Art. 32(1)(c)"),
)
PURGE_RUNS = Rule(
    name="purge_runs",
    what=gettext_lazy("Record of what was deleted when, in counts"),
    period=lambda: period(settings.PURGE_RUN_RETENTION),
    since=gettext_lazy("the run"),
    basis=gettext_lazy("GDPR Art. 5(2)"),
    store=Rows(model=PurgeRun, due=_old_runs),
    is_public=False,
)
