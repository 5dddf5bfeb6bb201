"""After an erasure the address stands in the restricted evidence and nowhere else."""

import pytest
from django.apps import apps
from django.core import mail
from django.db import connection, models

from newsroom import persons
from newsroom.mail.models import OutboxMail
from subscriptions import suppression
from subscriptions.models import ConsentPayload, PrivacyRequest, SignUp, Subscriber, Subscription, Suppression
from tests.makers import make_newsletter
from tests.subscriptions.reading import (
    a_reader,
    form_token,
    mails_to,
    open_rights_page,
    send_form,
    sign_up,
    subscribe,
)

pytestmark = pytest.mark.django_db
CANARY = "Kanarienvogel@Example.com"


def tables_with(text: str) -> set[str]:
    """Look for a text in every column of every table, in whatever letters."""
    found = set()
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            if any(text.lower() in str(row).lower() for row in cursor.fetchall()):
                found.add(table)
    return found


def erase(address: str) -> None:
    reader, page = open_rights_page(address)
    answer = reader.post("/meine-daten/loeschen/", {"token": form_token(page), "sure": "yes"})
    assert answer.status_code == 200


def test_the_address_is_found_in_the_evidence_only():
    subscribe(CANARY, make_newsletter())
    send_form(CANARY, make_newsletter())
    assert len(tables_with("kanarienvogel")) > 1

    erase(CANARY)

    assert tables_with("kanarienvogel") == {"subscriptions_consentpayload"}


def test_of_someone_who_never_confirmed_nothing_is_found():
    send_form(CANARY, make_newsletter())

    erase(CANARY)

    assert tables_with("kanarienvogel") == set()


def test_the_evidence_ends_with_withdrawal_and_erasure():
    subscribe(CANARY, make_newsletter())

    erase(CANARY)

    acts = ConsentPayload.objects.order_by("record_id").values_list("record__type", flat=True)
    assert list(acts) == ["requested", "mail_sent", "confirmed", "withdrawn", "erased"]
    assert not Subscriber.objects.exists() and not Subscription.objects.exists()


def test_an_erased_address_is_suppressed_by_its_hash():
    subscribe(CANARY, make_newsletter())

    erase(CANARY)

    entry = suppression.find(CANARY.lower())
    assert entry is not None and entry.reason == Suppression.Reason.ERASURE


def test_links_sent_before_lead_nowhere_after_it():
    newsletter = make_newsletter()
    subscribe(CANARY, newsletter)
    other = make_newsletter()
    SignUp.objects.update(requested_at="2026-01-01T00:00Z")
    pending = sign_up(CANARY, other)
    reader, page = open_rights_page(CANARY)

    reader.post("/meine-daten/loeschen/", {"token": form_token(page), "sure": "yes"})

    assert a_reader().post(pending).status_code == 404
    assert reader.post("/meine-daten/export/", {"token": form_token(page)}).status_code == 410
    assert not Subscriber.objects.exists()


def test_a_mail_that_waits_does_not_go_after_it():
    subscribe(CANARY, make_newsletter())
    reader, page = open_rights_page(CANARY)
    SignUp.objects.update(requested_at="2026-01-01T00:00Z")
    send_form(CANARY, make_newsletter())
    sent_before = len(mail.outbox)

    reader.post("/meine-daten/loeschen/", {"token": form_token(page), "sure": "yes"})

    mails_to(CANARY)
    assert len(mail.outbox) == sent_before
    assert not OutboxMail.objects.exists()
    assert not PrivacyRequest.objects.exclude(address="").exists()


def test_who_was_erased_may_sign_up_again():
    newsletter = make_newsletter()
    subscribe(CANARY, newsletter)
    erase(CANARY)

    subscribe(CANARY, newsletter)

    assert Subscription.objects.mailable().count() == 1
    assert not suppression.is_suppressed(CANARY.lower())


def test_the_rest_of_the_readers_is_untouched():
    newsletter = make_newsletter()
    subscribe("other@example.com", newsletter)
    subscribe(CANARY, newsletter)

    erase(CANARY)

    assert Subscriber.objects.get().address == "other@example.com"
    assert Subscription.objects.mailable().count() == 1


@pytest.mark.parametrize("label", ["subscriptions", "mail"])
def test_every_model_is_registered_as_a_holding_or_holds_nothing_personal(label):
    registered = {name.lower() for holding in persons.holdings() for name in holding.models}
    impersonal = {name.lower() for name in persons.impersonal()}

    for model in apps.get_app_config(label).get_models(include_auto_created=True):
        assert issubclass(model, models.Model)
        assert model._meta.label_lower in registered | impersonal
