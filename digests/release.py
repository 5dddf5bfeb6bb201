"""Whether and when a digest goes out: approved, started, paused, resumed, cancelled, or too late."""

from datetime import datetime

from django.contrib.auth.models import AbstractBaseUser, User
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from digests import audience, steps
from digests.models import DeliveryBatch, Digest, DigestSchedule, DigestTest, LeftOut
from newsroom.mail import outbox
from subscriptions.models import Subscription

TEST_MAIL = "digest_test"

State = Digest.State


def count_readers(digest: Digest) -> int:
    """Return how many readers the digest would go to if it started now."""
    return Subscription.objects.mailable().filter(newsletter=digest.newsletter_id).count()


def approve(digest: Digest, *, now: datetime, actor: AbstractBaseUser) -> bool:
    """Release a compiled digest; it goes out at its time, at once if that has come."""
    with transaction.atomic():
        if now >= digest.not_after or not steps.take(digest, steps.APPROVE, now=now, actor=actor):
            return False
        if digest.due_at <= now:
            start_sending(digest, now=now, actor=actor)
    return True


def send_now(digest: Digest, *, now: datetime, actor: AbstractBaseUser) -> bool:
    """Start a digest before its time, or without the approval it waits for."""
    reason = _("sent before its time") if now < digest.due_at else ""
    return start_sending(digest, now=now, actor=actor, reason=reason)


def start_sending(digest: Digest, *, now: datetime, actor: AbstractBaseUser | None = None, reason: str = "") -> bool:
    """Freeze the audience and let the delivery begin, in one transaction. False if it has begun or it is too late."""
    if now >= digest.not_after:
        return False
    if lapsed := audience.count_lapsed(digest, now=now):
        left_out = ngettext(
            "%(count)d reader is left out: not sent this newsletter for too long, so the consent has lapsed.",
            "%(count)d readers are left out: not sent this newsletter for too long, so their consents have lapsed.",
            lapsed,
        ) % {"count": lapsed}
        reason = f"{reason}; {left_out}" if reason else left_out
    with transaction.atomic():
        if not steps.take(digest, steps.START, now=now, actor=actor, reason=reason):
            return False
        audience.freeze(digest, now=now)
    digest.refresh_from_db()
    return True


def start_due(now: datetime) -> list[Digest]:
    """Start the digests whose time has come and that wait for nobody."""
    due = Digest.objects.filter(due_at__lte=now, not_after__gt=now)
    approved = due.filter(state=State.APPROVED)
    # One that was made ahead does not go out by itself when its schedule has been stopped since.
    automatic = due.filter(
        state=State.COMPILED,
        schedule__approval=DigestSchedule.Approval.AUTOMATIC,
        schedule__state=DigestSchedule.State.RUNNING,
    )
    return [digest for digest in [*approved, *automatic] if start_sending(digest, now=now)]


def lapse(now: datetime) -> None:
    """Skip the digests that nobody approved in time; their articles wait again."""
    for digest in Digest.objects.filter(state__in=steps.SKIP.before, not_after__lte=now):
        reason = _("It was not approved in time.") if digest.state == State.COMPILED else _("It did not start in time.")
        with transaction.atomic():
            if steps.take(digest, steps.SKIP, now=now, reason=reason):
                _release_articles(digest, now=now)


def pause(digest: Digest, *, now: datetime, actor: AbstractBaseUser, reason: str = "") -> bool:
    """Hold back what has not been handed over yet."""
    return steps.take(digest, steps.PAUSE, now=now, actor=actor, reason=reason)


def resume(digest: Digest, *, now: datetime, actor: AbstractBaseUser) -> bool:
    return steps.take(digest, steps.RESUME, now=now, actor=actor)


def cancel(digest: Digest, *, now: datetime, actor: AbstractBaseUser, reason: str) -> bool:
    """End a digest for good. Its articles wait again, unless some reader may have got them already."""
    with transaction.atomic():
        if not steps.take(digest, steps.CANCEL, now=now, actor=actor, reason=reason):
            return False
        digest.batches.filter(state=DeliveryBatch.State.PENDING).update(state=DeliveryBatch.State.CANCELLED)
        if _has_reached_nobody(digest):
            _release_articles(digest, now=now)
    return True


def send_test(digest: Digest, *, user: User, now: datetime) -> DigestTest | None:
    """Have one copy sent to the account's own address; None if it has none or the digest is not rendered."""
    if not user.email or not digest.html:
        return None
    with transaction.atomic():
        test = DigestTest.objects.create(digest=digest, user=user, requested_at=now)
        outbox.enqueue(TEST_MAIL, reference=test.uuid, now=now)
    return test


def _has_reached_nobody(digest: Digest) -> bool:
    begun = digest.batches.exclude(state=DeliveryBatch.State.CANCELLED)
    return not begun.exists() and not digest.deliveries.exists()


def _release_articles(digest: Digest, *, now: datetime) -> None:
    digest.entries.filter(released_at=None).update(released_at=now)
    LeftOut.objects.filter(digest=digest, reason=LeftOut.Reason.MAXIMUM).delete()
