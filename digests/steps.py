"""A digest moves by a guarded update, and every move leaves its trace: when, by whom, why."""

from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction

from digests.models import Digest, DigestChange

State = Digest.State


@dataclass(frozen=True, slots=True)
class Step:
    """A move of a digest from one of the states `before` to the state `after`."""

    before: tuple[Digest.State, ...]
    after: Digest.State


COMPILE = Step((State.PLANNED,), State.COMPILED)
SKIP = Step((State.PLANNED, State.COMPILED, State.APPROVED), State.SKIPPED)
REOPEN = Step((State.SKIPPED,), State.PLANNED)
APPROVE = Step((State.COMPILED,), State.APPROVED)
START = Step((State.COMPILED, State.APPROVED), State.SENDING)
PAUSE = Step((State.SENDING,), State.PAUSED)
RESUME = Step((State.PAUSED,), State.SENDING)
CANCEL = Step((State.PLANNED, State.COMPILED, State.APPROVED, State.SENDING, State.PAUSED), State.CANCELLED)


def take(digest: Digest, step: Step, *, now: datetime, actor: AbstractBaseUser | None = None, reason: str = "") -> bool:
    """Move the digest and note it. False, and nothing done, if it was in no state that the step begins with."""
    reason = reason[:300]  # as long as the column
    with transaction.atomic():
        moved = Digest.objects.filter(pk=digest.pk, state__in=step.before).update(state=step.after, state_reason=reason)
        if moved:
            note(digest, step.after, now=now, actor=actor, reason=reason)
    if moved:
        digest.state, digest.state_reason = step.after, reason
    return bool(moved)


def note(digest: Digest, state: str, *, now: datetime, actor: AbstractBaseUser | None = None, reason: str = "") -> None:
    """Add a line to the digest's history."""
    DigestChange.objects.create(digest=digest, state=state, at=now, actor_id=actor.pk if actor else None, reason=reason)
