"""Staff's hand on a compiled digest: put in, take out, move, refresh. Until it is approved, and never empty."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from django.contrib.auth.models import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext as _

from digests import entries, pictures, rendering, steps
from digests.compilation import waiting_articles
from digests.models import Digest, DigestEntry, LeftOut
from newsroom.articles.models import Article


class CannotEdit(Exception):
    """The digest stays as it is; the message says why, in words for staff."""


def add_article(digest: Digest, article: Article, *, now: datetime, actor: AbstractBaseUser) -> None:
    """Put an article in, at the end of its section."""
    pictures.thumbnail_url(article)  # before the transaction, since it takes its time
    with _editing(digest):
        LeftOut.objects.filter(newsletter=digest.newsletter_id, article=article).delete()
        entry = entries.freeze(digest, article, position=0)
        try:
            with transaction.atomic():
                entry.save()
        except IntegrityError:
            raise CannotEdit(_("The article is in one of this newsletter's digests already.")) from None
        _number(_in_its_section(entry, _others(entry)))
        _note(digest, _("put in: %(headline)s"), entry, now=now, actor=actor)


def remove_entry(entry: DigestEntry, *, now: datetime, actor: AbstractBaseUser) -> None:
    """Take an article out. It is noted as left out, and comes back only by hand."""
    with _editing(entry.digest) as digest:
        if not _others(entry):
            raise CannotEdit(_("A digest needs an article; cancel the digest instead."))
        entry.delete()
        LeftOut.objects.update_or_create(
            newsletter_id=digest.newsletter_id,
            article=entry.article,
            defaults={"digest": digest, "reason": LeftOut.Reason.STAFF, "actor_id": actor.pk, "at": now},
        )
        _number(_entries(digest))
        _note(digest, _("taken out: %(headline)s"), entry, now=now, actor=actor)


def move_entry(entry: DigestEntry, *, to: int) -> None:
    """Give an entry another position, counted from 1; the first one is the lead story."""
    with _editing(entry.digest):
        others = _others(entry)
        index = max(0, min(to - 1, len(others)))
        _number([*others[:index], entry, *others[index:]])


def take_over_changes(entry: DigestEntry, *, now: datetime, actor: AbstractBaseUser) -> None:
    """Freeze the article anew, as it is now."""
    pictures.thumbnail_url(entry.article)
    with _editing(entry.digest) as digest:
        DigestEntry.objects.filter(pk=entry.pk).update(**entries.facts_with_thumbnail(entry.article))
        _note(digest, _("changes taken over: %(headline)s"), entry, now=now, actor=actor)


def addable_articles(digest: Digest, *, now: datetime) -> QuerySet[Article]:
    """Return what staff may put in: waiting articles, and those that were left out of this digest."""
    left_out = LeftOut.objects.filter(digest=digest, article=OuterRef("pk"))
    in_a_digest = DigestEntry.objects.filter(newsletter=digest.newsletter_id, article=OuterRef("pk"), released_at=None)
    wanted = Q(Exists(left_out))
    if digest.schedule is not None:
        wanted |= Q(pk__in=waiting_articles(digest.schedule, now=now).order_by().values("pk"))
    articles = Article.objects.published(now).filter(wanted, ~Exists(in_a_digest))
    return articles.select_related("section").in_reading_order()


@contextmanager
def _editing(digest: Digest) -> Iterator[Digest]:
    """Lock a digest that may still be changed, and render it afterwards."""
    with transaction.atomic():
        # The update locks the row, so that an approval comes either before all of this or after it.
        if not Digest.objects.editable().filter(pk=digest.pk).update(state=Digest.State.COMPILED):
            raise CannotEdit(_("The digest has been approved or has gone out; it can no longer be changed."))
        yield digest
        rendering.store(digest)


def _entries(digest: Digest) -> list[DigestEntry]:
    return list(digest.entries.filter(released_at=None))


def _others(entry: DigestEntry) -> list[DigestEntry]:
    return [other for other in _entries(entry.digest) if other.pk != entry.pk]


def _in_its_section(entry: DigestEntry, others: list[DigestEntry]) -> list[DigestEntry]:
    """Return the entries with this one after the last of its section, or at the end."""
    places = [index for index, other in enumerate(others, start=1) if other.section == entry.section]
    place = places[-1] if places else len(others)
    return [*others[:place], entry, *others[place:]]


def _number(ordered: list[DigestEntry]) -> None:
    for position, entry in enumerate(ordered, start=1):
        entry.position = position
    DigestEntry.objects.bulk_update(ordered, ["position"])


def _note(digest: Digest, text: str, entry: DigestEntry, *, now: datetime, actor: AbstractBaseUser) -> None:
    steps.note(digest, Digest.State.COMPILED, now=now, actor=actor, reason=text % {"headline": entry.headline})
