"""What each sign-up asks of the database, in the fewest statements: they are the busiest of the site.

On PostgreSQL the limit, the look at what is offered, the form's rows, its proof and its mail are one statement and with
it one transaction. SQLite cannot write to several tables in one statement, nor does a statement cost it a way; there
they are a transaction of several.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from django.db import connection, models, transaction
from psycopg import sql

from newsroom.mail.models import OutboxMail
from newsroom.postgresql.base import array_of, ask_for_row, busy_cursor
from subscriptions.models import AgreedText, ConsentPayload, ConsentRecord, RequestCount, SignUp

_COUNT = f"""
INSERT INTO {RequestCount._meta.db_table} AS known (network, window_start, count)
{{row}} ON CONFLICT (network, window_start) DO UPDATE SET count = known.count + 1 RETURNING count
"""
# A power cut may forget the last moment's counts; so no reader waits until the disk has them.
_HURRIED = "SELECT %s, %s, 1 FROM (SELECT set_config('synchronous_commit', 'off', true)) AS hurried"

_NEWEST = """
NOT EXISTS (
    SELECT 1 FROM subscriptions_consenttext newer
    WHERE newer.language = words.language AND newer.version > words.version AND {same}
)
"""
_OFFER_ROWS = f"""
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
"""  # noqa: S608
_OFFER = f"{_OFFER_ROWS} ORDER BY 6, 2"
# Of which versions of which rows the offer was made: where each stands, and who wrote it there. Whatever is changed,
# added or removed is another version; to compare these costs far less than to put the offer together again.
_MARK = """
SELECT bit_xor(hash_record_extended(ROW(kind, place, writer), 0)) FROM (
    SELECT 1, ctid, xmin FROM subscriptions_newsletter UNION ALL SELECT 2, ctid, xmin FROM subscriptions_consenttext
) AS versions (kind, place, writer)
"""
_OFFER_WITH_MARK = f"SELECT offer.*, ({_MARK}) FROM ({_OFFER_ROWS}) AS offer ORDER BY 6, 2"  # noqa: S608


Fields = tuple[str, ...]
Row = dict[str, Any]  # a model's fields; making the model of it would cost as much as writing it


@dataclass(frozen=True, slots=True)
class Visit:
    """A network's request in a window, and how many it may make in that."""

    network: str
    window_start: datetime
    limit: int


@dataclass(frozen=True, slots=True)
class ReadOffer:
    """What is offered: the open newsletters in their order, each with its newest text, if any, and whether it is borne.

    The declaration's text is a row without a newsletter. `mark` is by what the database knows it again.
    """

    rows: tuple[tuple[Any, ...], ...]
    mark: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A submitted form with all that belongs to it: rows by their fields, the texts agreed to by their keys."""

    sign_up: Row
    texts: list[int]
    proof: Row
    payload: Row
    mail: Row


def count_request(visit: Visit) -> int:
    """Count one more request of a network in a window, and return how many it has made."""
    row = _HURRIED if connection.vendor == "postgresql" else "VALUES (%s, %s, 1)"
    start = connection.ops.adapt_datetimefield_value(visit.window_start)
    with busy_cursor() as cursor:
        cursor.execute(_COUNT.format(row=row), [visit.network, start])
        return int(cursor.fetchone()[0])


def read_offer(language: str) -> ReadOffer:
    is_postgresql = connection.vendor == "postgresql"
    with busy_cursor() as cursor:
        cursor.execute(_OFFER_WITH_MARK if is_postgresql else _OFFER, [language, language])
        found = tuple(tuple(row) for row in cursor.fetchall())
    if not is_postgresql:
        return ReadOffer(found, mark=found)
    return ReadOffer(tuple(row[:-1] for row in found), mark=found[0][-1] if found else None)


def admit_form(form: Form, visit: Visit, *, language: str, mark: Any) -> tuple[int, bool]:
    """Count a network's request, and keep its form unless it is one too many or what it shows is offered no longer.

    Return how many requests the network has made, and whether the form was kept: then all of it was.
    """
    if connection.vendor == "postgresql":
        rows = (form.sign_up, form.proof, {**form.payload, "body": json.dumps(form.payload["body"])}, form.mail)
        statement = _form_statement(*map(tuple, rows))
        asked = [visit.network, visit.window_start, visit.limit, mark]
        written = [value for row in rows for value in row.values()]
        row = ask_for_row(statement, [*asked, *written, array_of(form.texts)])
        assert row is not None
        return row[0], row[1]
    with transaction.atomic():  # whoever changes the offer waits until the form is written
        count = count_request(visit)
        if count > visit.limit or read_offer(language).mark != mark:
            return count, False
        keep_form(form)
        return count, True


@transaction.atomic
def keep_form(form: Form) -> SignUp:
    """Write a submitted form with all that belongs to it, or nothing of it."""
    sign_up = SignUp.objects.create(**form.sign_up)
    ConsentPayload.objects.create(record=ConsentRecord.objects.create(**form.proof), **form.payload)
    OutboxMail.objects.create(**form.mail)
    AgreedText.objects.bulk_create([AgreedText(sign_up=sign_up, text_id=key) for key in form.texts])
    return sign_up


@cache
def _form_statement(sign_up: Fields, proof: Fields, payload: Fields, mail: Fields) -> str:
    return f"""
        WITH counted AS ({_COUNT.format(row="VALUES (%s, %s, 1)")}),
        gate AS (SELECT FROM counted WHERE count <= %s AND ({_MARK}) = %s),
        sign_up AS ({_insert(SignUp, sign_up)} FROM gate RETURNING id),
        proof AS ({_insert(ConsentRecord, proof)} FROM gate RETURNING id),
        payload AS ({_insert(ConsentPayload, payload, record_id="proof.id")} FROM proof),
        mail AS ({_insert(OutboxMail, mail)} FROM gate),
        agreed AS (
            INSERT INTO {AgreedText._meta.db_table} (sign_up_id, text_id)
            SELECT id, unnest(%s::bigint[]) FROM sign_up
        )
        SELECT counted.count, sign_up.id IS NOT NULL,
            CASE WHEN sign_up.id IS NULL THEN set_config('synchronous_commit', 'off', true) END
        FROM counted LEFT JOIN sign_up ON true
    """  # noqa: S608


def _insert(model: type[models.Model], given: Fields, **taken: str) -> str:
    """Return the statement that writes these fields, in this order; the others have their default."""
    fields = {field.name: field for field in model._meta.concrete_fields if not field.primary_key}
    written = [fields.pop(name).column for name in given]
    defaults = {field.column: sql.Literal(field.get_default()).as_string() for field in fields.values()}
    columns = [f'"{column}"' for column in (*taken, *written, *defaults)]
    values = [*taken.values(), *(["%s"] * len(given)), *defaults.values()]
    return f"INSERT INTO {model._meta.db_table} ({', '.join(columns)}) SELECT {', '.join(values)}"
