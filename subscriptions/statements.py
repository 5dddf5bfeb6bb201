"""What each sign-up asks of the database, in the fewest statements: they are the busiest of the site.

On PostgreSQL the form's rows, its proof and its mail are one statement and with it one transaction, over before the
next reader's begins. SQLite cannot write to several tables in one statement, nor does a statement cost it a way.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from django.db import connection, models, transaction

from newsroom.mail.models import OutboxMail
from newsroom.postgresql.base import busy_cursor
from subscriptions.models import ConsentPayload, ConsentRecord, RequestCount, SignUp

_COUNT = f"""
INSERT INTO {RequestCount._meta.db_table} AS counted (network, window_start, count)
{{row}} ON CONFLICT (network, window_start) DO UPDATE SET count = counted.count + 1 RETURNING count
"""
# A power cut may forget the last moment's counts; so no reader waits until the disk has them.
_HURRIED = "SELECT %s, %s, 1 FROM (SELECT set_config('synchronous_commit', 'off', true)) AS hurried"

_NEWEST = """
NOT EXISTS (
    SELECT 1 FROM subscriptions_consenttext newer
    WHERE newer.language = words.language AND newer.version > words.version AND {same}
)
"""
_OFFER = f"""
SELECT newsletter.id, newsletter.name, newsletter.slug, newsletter.description, newsletter.frequency,
    newsletter.position, newsletter.state, words.id, words.version, words.wording, used.text_id IS NOT NULL
FROM subscriptions_newsletter newsletter
LEFT JOIN subscriptions_consenttext words ON words.newsletter_id = newsletter.id AND words.language = %s
    AND {_NEWEST.format(same="newer.newsletter_id = words.newsletter_id")}
LEFT JOIN subscriptions_consenttextuse used ON used.text_id = words.id
WHERE newsletter.state = 'open'
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, words.id, words.version, words.wording, used.text_id IS NOT NULL
FROM subscriptions_consenttext words
LEFT JOIN subscriptions_consenttextuse used ON used.text_id = words.id
WHERE words.newsletter_id IS NULL AND words.language = %s
    AND {_NEWEST.format(same="newer.newsletter_id IS NULL")}
ORDER BY 6, 2
"""  # noqa: S608


def count_request(network: str, window_start: datetime) -> int:
    """Count one more request of a network in a window, and return how many it has made."""
    row = _HURRIED if connection.vendor == "postgresql" else "VALUES (%s, %s, 1)"
    start = connection.ops.adapt_datetimefield_value(window_start)
    with busy_cursor() as cursor:
        cursor.execute(_COUNT.format(row=row), [network, start])
        return int(cursor.fetchone()[0])


def read_offer(language: str) -> tuple[tuple[Any, ...], ...]:
    """Return the open newsletters in their order, each with its newest text, if it has one, and whether that is borne.

    The declaration's text is a row without a newsletter.
    """
    with busy_cursor() as cursor:
        cursor.execute(_OFFER, [language, language])
        return tuple(tuple(row) for row in cursor.fetchall())


def write_sign_up(
    sign_up: SignUp,
    *,
    newsletters: Sequence[int],
    texts: Sequence[int],
    proof: ConsentRecord,
    payload: ConsentPayload,
    mail: OutboxMail,
) -> None:
    """Write a submitted form with all that belongs to it, or nothing of it. Newsletters and texts are named by key."""
    if connection.vendor == "postgresql":
        values = [value for row in (sign_up, proof, payload, mail) for value in _values(row)]
        with busy_cursor() as cursor:
            cursor.execute(_sign_up_statement(), [*values, list(newsletters), list(texts)])
            sign_up.pk, proof.pk = cursor.fetchone()
        return
    with transaction.atomic():
        sign_up.save(force_insert=True)
        proof.save(force_insert=True)
        payload.record = proof
        payload.save(force_insert=True)
        mail.save(force_insert=True)
        _link(SignUp.newsletters.through, sign_up, "newsletter_id", newsletters)
        _link(SignUp.consent_texts.through, sign_up, "consenttext_id", texts)


def _link(through: type[models.Model], sign_up: SignUp, column: str, keys: Iterable[int]) -> None:
    through._default_manager.bulk_create([through(signup_id=sign_up.pk, **{column: key}) for key in keys])


@cache
def _sign_up_statement() -> str:
    newsletters, texts = (each.through._meta.db_table for each in (SignUp.newsletters, SignUp.consent_texts))
    return f"""
        WITH sign_up AS (INSERT INTO {_into(SignUp)} VALUES ({_places(SignUp)}) RETURNING id),
        proof AS (INSERT INTO {_into(ConsentRecord)} VALUES ({_places(ConsentRecord)}) RETURNING id),
        payload AS (
            INSERT INTO {_into(ConsentPayload, "record_id, ")} SELECT proof.id, {_places(ConsentPayload)} FROM proof
        ),
        mail AS (INSERT INTO {_into(OutboxMail)} VALUES ({_places(OutboxMail)})),
        chosen AS (
            INSERT INTO {newsletters} (signup_id, newsletter_id) SELECT id, unnest(%s::bigint[]) FROM sign_up
        ),
        agreed AS (
            INSERT INTO {texts} (signup_id, consenttext_id) SELECT id, unnest(%s::bigint[]) FROM sign_up
        )
        SELECT sign_up.id, proof.id FROM sign_up, proof
    """  # noqa: S608


def _into(model: type[models.Model], first: str = "") -> str:
    columns = ", ".join(f'"{field.column}"' for field in _fields(model))
    return f'"{model._meta.db_table}" ({first}{columns})'


def _places(model: type[models.Model]) -> str:
    return ", ".join(["%s"] * len(_fields(model)))


def _values(row: models.Model) -> list[Any]:
    # psycopg knows the types of all others as they are.
    return [
        field.get_db_prep_save(value, connection) if isinstance(value := getattr(row, field.attname), dict) else value
        for field in _fields(type(row))
    ]


@cache
def _fields(model: type[models.Model]) -> list["models.Field[Any, Any]"]:
    return [field for field in model._meta.concrete_fields if not field.primary_key]
