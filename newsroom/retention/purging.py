"""Delete what is due, rule by rule and in chunks. Broken off anywhere, the next run goes on where this one stood."""

import logging
from datetime import datetime, timedelta
from time import monotonic, sleep

from django.conf import settings
from django.db import DatabaseError, connection

from newsroom import retention
from newsroom.retention import Rule
from newsroom.retention.models import PurgeRun

logger = logging.getLogger(__name__)

State = PurgeRun.State

# Between two write transactions on SQLite, which has one writer: a sign-up gets in at once.
SQLITE_PAUSE = 0.02
# A run that says nothing for so long was broken off: a task's is far shorter, a command's seldom longer.
LONGEST_RUN = timedelta(hours=6)


def purge(now: datetime, *, time_limit: timedelta | None = None) -> PurgeRun:
    """Carry out every rule and return the record of it; `time_limit` ends it between two chunks, unfinished."""
    return _Run(now, time_limit).go()


class _Run:
    def __init__(self, now: datetime, time_limit: timedelta | None) -> None:
        self._now, self._began = now, monotonic()
        self._time_limit = time_limit
        lost = PurgeRun.objects.filter(state=State.RUNNING, started_at__lt=now - LONGEST_RUN)
        lost.update(state=State.UNFINISHED, ended_at=now)
        self._record = PurgeRun.objects.create(started_at=now)

    def go(self) -> PurgeRun:
        states = [self._carry_out(rule) for rule in retention.purged_rules()]
        record = self._record
        record.state = next((state for state in (State.FAILED, State.UNFINISHED) if state in states), State.COMPLETE)
        record.ended_at = self._now + timedelta(seconds=monotonic() - self._began)
        record.save(update_fields=["state", "ended_at"])
        return record

    def _carry_out(self, rule: Rule) -> PurgeRun.State:
        """Remove what is due by a rule. One that fails keeps no other waiting."""
        assert rule.store
        self._record.counts.setdefault(rule.name, 0)
        try:
            for _chunk in rule.store.purge(self._now, limit=settings.PURGE_CHUNK, note=lambda n: self._note(rule, n)):
                if self._is_over():
                    return State.UNFINISHED
                if connection.vendor == "sqlite":
                    sleep(SQLITE_PAUSE)
        except (DatabaseError, OSError) as error:  # in its own words it may quote an address
            logger.error("purging %s failed: %s", rule.name, type(error).__name__)
            self._record.refresh_from_db(fields=["counts"])
            return State.FAILED
        # What was taken up and is still there will be there the next time, too: then “complete” would be a lie.
        return State.FAILED if rule.store.count_due(self._now) else State.COMPLETE

    def _is_over(self) -> bool:
        return self._time_limit is not None and monotonic() - self._began > self._time_limit.total_seconds()

    def _note(self, rule: Rule, removed: int) -> None:
        self._record.counts[rule.name] = self._record.counts.get(rule.name, 0) + removed
        self._record.save(update_fields=["counts"])
