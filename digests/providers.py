"""The gate: whether the provider may be given mail now, and what its answers do to that."""

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import F
from django.utils.translation import gettext as _

from digests.models import Provider
from newsroom.mail.transport import Outcome, Result

log = logging.getLogger(__name__)

FIRST_PAUSE = timedelta(seconds=15)
LONGEST_PAUSE = timedelta(minutes=10)


def current() -> Provider:
    """Return the provider that `EMAIL_BACKEND` names; its row is made at first use."""
    return Provider.objects.get_or_create(name=settings.EMAIL_BACKEND.removesuffix(".EmailBackend"))[0]


def passes(provider: Provider, *, now: datetime) -> bool:
    """Whether a batch may be claimed for this provider now."""
    return provider.gate == Provider.Gate.OPEN and (provider.resume_at is None or provider.resume_at <= now)


def note(provider: Provider, result: Result, *, now: datetime) -> datetime:
    """Let the gate learn from an answer, and return when to try again what that answer left unsent."""
    match result.outcome:
        case Outcome.ACCEPTED | Outcome.REFUSED:
            _clear(provider)
            return now
        case Outcome.DENIED:
            return _close(provider, result, now=now)
        case Outcome.THROTTLED:
            return _pause(provider, now + (result.retry_after or FIRST_PAUSE), counts_as_failure=False)
        case _:
            return _pause(provider, now + _pause_after(provider.failures), counts_as_failure=True)


def reopen(provider: Provider) -> bool:
    """Let mail pass again after staff has mended what the provider complained of."""
    return bool(
        Provider.objects.filter(pk=provider.pk, gate=Provider.Gate.CLOSED).update(
            gate=Provider.Gate.OPEN, reason="", failures=0, resume_at=None
        )
    )


def _pause_after(failures: int) -> timedelta:
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10))


def _clear(provider: Provider) -> None:
    if provider.failures or provider.resume_at:
        Provider.objects.filter(pk=provider.pk).update(failures=0, resume_at=None)


def _pause(provider: Provider, until: datetime, *, counts_as_failure: bool) -> datetime:
    Provider.objects.filter(pk=provider.pk).update(
        resume_at=until, failures=F("failures") + (1 if counts_as_failure else 0)
    )
    return until


def _close(provider: Provider, result: Result, *, now: datetime) -> datetime:
    """Hold everything back: the provider does not know us, so each further mail would be refused as well."""
    reason = _("The provider refuses our key or password (%(detail)s). Correct it, then let mail pass again.") % {
        "detail": result.detail
    }
    Provider.objects.filter(pk=provider.pk).update(gate=Provider.Gate.CLOSED, reason=reason)
    log.error("provider %s: gate closed, %s", provider.name, result.detail)
    return now
