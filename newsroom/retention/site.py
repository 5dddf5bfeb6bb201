"""What belongs to no app of ours: what the operator's machines keep, what staff did here, and the purge itself."""

from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from newsroom import retention
from newsroom.retention import Rule
from newsroom.retention.models import PurgeRun
from newsroom.retention.rows import Rows
from newsroom.templatetags.periods import period


def register() -> None:
    retention.register(SERVER_LOGS, BACKUPS, ADMIN_LOG, SESSIONS, PURGE_RUNS)


def _of_backups() -> str:
    return _("%(period)s; deleted data may still be there that long") % {"period": period(settings.BACKUP_RETENTION)}


def _old_entries(now: datetime) -> QuerySet:
    return LogEntry.objects.filter(action_time__lte=now - settings.ADMIN_LOG_RETENTION)


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
ADMIN_LOG = Rule(
    name="admin_log",
    what=gettext_lazy("What staff changed in the admin"),
    period=lambda: period(settings.ADMIN_LOG_RETENTION),
    since=gettext_lazy("the change"),
    basis=gettext_lazy("GDPR Art. 6(1)(f), Art. 32"),
    store=Rows(model=LogEntry, due=_old_entries),
    is_public=False,
)
SESSIONS = Rule(
    name="sessions",
    what=gettext_lazy("That staff are logged in"),
    period=lambda: period(timedelta(seconds=settings.SESSION_COOKIE_AGE)),
    since=gettext_lazy("logging in"),
    basis=gettext_lazy("GDPR Art. 6(1)(f), Art. 32"),
    store=Rows(model=Session, due=lambda now: Session.objects.filter(expire_date__lte=now)),
    is_public=False,
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
