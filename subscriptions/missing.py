"""What the chain alone does not show: proofs deleted before their time, and texts that were changed since.

Retention may delete payloads, so one that is gone breaks no seal. But it may not do so before the evidence's time is
over; and what readers agreed to stands in their payloads word by word, so a text that was changed contradicts them.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from subscriptions import ledger
from subscriptions.models import (
    ConsentPayload,
    ConsentRecord,
    ConsentText,
    Newsletter,
    SignUp,
    Subscriber,
    Subscription,
)
from subscriptions.retention import OF_SIGN_UPS, evidence_limit

Type = ConsentRecord.Type

SHOWN = 20  # of a kind; whoever deleted thousands need not be told of each
AGREED = (Type.CONFIRMED, Type.ADDED)
# Newsletter (none: the declaration), language and version.
Edition = tuple[str, str, int]


def find(now: datetime) -> Iterator[str]:
    """Yield a sentence for each proof that should still be there, and for each text that was changed."""
    bare = sorted({*_acts(now), *_of_readers(now), *_of_sign_ups(now)})
    for pk in bare[:SHOWN]:
        yield f"What record {pk} said was deleted before its time."
    if len(bare) > SHOWN:
        yield f"And so was what {len(bare) - SHOWN} other records said."
    yield from islice(_changed_texts(), SHOWN)


def _without_payload() -> QuerySet[ConsentRecord]:
    return ConsentRecord.objects.filter(payload=None)


def _acts(now: datetime) -> Iterable[int]:
    """Acts of readers that are younger than the evidence's period."""
    acts = _without_payload().exclude(type__in=OF_SIGN_UPS)
    return acts.filter(at__gte=evidence_limit(now)).values_list("pk", flat=True)


def _of_readers(now: datetime) -> Iterator[int]:
    """Acts, however old, of readers who still get mail, or whose processing is restricted.

    What was agreed to from a former address was carried along to the present one, and its own row may have gone. That
    the address was changed is said twice, and the former address's part may have gone as well.
    """
    standing = Subscription.objects.filter(subscriber=OuterRef("pk")).exclude(state=Subscription.State.ENDED)
    readers = Subscriber.objects.filter(Exists(standing) | Q(restricted_at__isnull=False))
    acts = _without_payload().exclude(type__in=[*OF_SIGN_UPS, Type.ADDRESS_CHANGED, Type.ERASED])
    old = acts.filter(subject__in=readers.values("uuid"), at__lt=evidence_limit(now)).values_list("pk", "uuid")
    carried = set(_carried()) if old else set()
    return (pk for pk, uuid in old if str(uuid) not in carried)


def _carried() -> Iterator[str]:
    changes = ConsentPayload.objects.filter(record__type=Type.ADDRESS_CHANGED).values_list("body", flat=True)
    return (entry["record"] for body in changes.iterator(chunk_size=500) for entry in body.get(ledger.CARRIED, []))


def _of_sign_ups(now: datetime) -> Iterator[int]:
    """Sign-ups that are still there, and those whose confirmation is: both were said with what followed from them."""
    yield from _sign_up_records(SignUp.objects.values("uuid"))
    confirmed = ConsentPayload.objects.filter(record__type=Type.CONFIRMED, record__at__gte=evidence_limit(now))
    causes = (body["sign_up"] for body in _bodies(confirmed) if body.get("sign_up"))
    while some := list(islice(causes, 500)):
        yield from _sign_up_records(some)


def _sign_up_records(subjects: Any) -> Iterable[int]:
    return _without_payload().filter(type__in=OF_SIGN_UPS, subject__in=subjects).values_list("pk", flat=True)


def _bodies(payloads: QuerySet[ConsentPayload]) -> Iterator[dict[str, Any]]:
    return payloads.values_list("body", flat=True).iterator(chunk_size=500)


def _changed_texts() -> Iterator[str]:
    texts = {_edition(text): text.wording for text in ConsentText.objects.select_related("newsletter")}
    slugs = {"", *Newsletter.objects.values_list("slug", flat=True)}
    reported: set[Edition] = set()
    for body in _bodies(ConsentPayload.objects.filter(record__type__in=AGREED)):
        for edition, wording in _agreed(body):
            newsletter, language, version = edition
            if edition not in reported and newsletter in slugs and texts.get(edition) != wording:
                reported.add(edition)
                of = f"of “{newsletter}”" if newsletter else "beside the button"
                what = "is not the one" if edition in texts else "is gone, and is one"
                yield f"The consent text {of} ({language}, v{version}) {what} that readers agreed to."


def _edition(text: ConsentText) -> Edition:
    return (text.newsletter.slug if text.newsletter else "", text.language, text.version)


def _agreed(body: dict[str, Any]) -> Iterator[tuple[Edition, str]]:
    """Yield the texts an act quotes; what was brought in from elsewhere may quote none of ours."""
    for said in [body.get("declaration"), *body.get("newsletters", [])]:
        if said and {"language", "version", "wording"} <= said.keys():
            yield (said.get("slug", ""), said["language"], said["version"]), said["wording"]
