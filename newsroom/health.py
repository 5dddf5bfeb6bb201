"""What a supervisor or load balancer asks: does the process answer, and can it work?"""

from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from newsroom.mail import alarms, gate


@never_cache
@require_safe
def live(request: HttpRequest) -> HttpResponse:
    return _answer("ok", 200)


@never_cache
@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """Answer 200 if the database is there and as this version expects it, else 503 with the reason in a few words."""
    try:
        reason = _what_is_missing()
        note = "" if reason else _what_staff_must_know()
    except Error:  # its text may name the host and the user
        reason, note = "database not reachable", ""
    return _answer(reason, 503) if reason else _answer("ok" + note, 200)


def _what_is_missing() -> str:
    executor = MigrationExecutor(connection)
    pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return f"{len(pending)} migrations not applied" if pending else ""


def _what_staff_must_know() -> str:
    """The site answers all the same: readers can still unsubscribe."""
    reason = gate.find_obstacle()
    if reason:
        return f", but no mail goes: {reason}"
    # By name only: what is behind them stands on the admin's start page.
    grave = [alarm.key for alarm in alarms.current(timezone.now()) if alarm.is_grave and not alarm.permission]
    return f", but alarms: {' '.join(grave)}" if grave else ""


def _answer(text: str, status: int) -> HttpResponse:
    return HttpResponse(text + "\n", status=status, content_type="text/plain; charset=utf-8")
