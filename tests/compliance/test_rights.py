import re

import pytest

from subscriptions import suppression
from subscriptions.models import PrivacyRequest, Subscriber
from tests.compliance.post import RIGHTS, link_in
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader, send_form, stamp

pytestmark = pytest.mark.django_db
ADDRESS = "leserin@leser.example"
STRANGER = "niemand@leser.example"


def ask(address):
    return a_reader().post(RIGHTS, {"email": address, "stamp": stamp(fingerprint="rights")})


def shape(answer):
    return answer.status_code, dict(answer.items()), answer.content


def test_r29_who_reads_the_mailbox_is_the_reader(post):
    post.subscribe(ADDRESS, make_newsletter())
    before = len(post.to(ADDRESS))

    known, unknown = ask(ADDRESS), ask(STRANGER)

    assert shape(known) == shape(unknown)
    [mail] = post.to(ADDRESS)[before:]
    link = link_in(mail, RIGHTS)
    assert ADDRESS not in a_reader().get(link).content.decode()
    assert ADDRESS in a_reader().post(link).content.decode()
    assert a_reader().post(link).status_code == 410


def test_r30_no_form_tells_whether_an_address_is_known(post):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)

    assert shape(ask(ADDRESS)) == shape(ask(STRANGER))
    assert shape(send_form(ADDRESS, newsletter)) == shape(send_form(STRANGER, newsletter))


def test_r31_the_negative_answer_goes_to_the_mailbox_and_nowhere_else(post):
    ask(STRANGER)
    ask(STRANGER)

    [answer] = post.all()
    assert answer.recipients == [STRANGER] and not re.search(rf"{RIGHTS}[\w-]{{20,}}/", answer.text)


def test_r33_erasure_leaves_evidence_and_a_hash_and_says_so(post):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)
    post.issue(newsletter)
    reader, token = post.rights_page(ADDRESS)

    done = reader.post("/meine-daten/loeschen/", {"token": token, "sure": "yes"})

    assert "Kalenderjahr" in done.content.decode()
    assert not Subscriber.objects.exists() and not PrivacyRequest.objects.exclude(address="").exists()
    assert suppression.is_suppressed(ADDRESS)
    assert post.issue(newsletter, date="2026-01-01") == []


def test_r34_a_restricted_reader_is_neither_mailed_nor_deleted(post, admin_client):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)
    chosen = {"_selected_action": [Subscriber.objects.get().pk]}

    admin_client.post("/admin/subscriptions/subscriber/", {"action": "restrict"} | chosen)

    assert post.issue(newsletter) == []
    assert Subscriber.objects.get().restricted_at


def test_r35_an_objection_ends_everything_and_is_remembered(post, admin_client):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)
    chosen = {"_selected_action": [Subscriber.objects.get().pk]}

    admin_client.post("/admin/subscriptions/subscriber/", {"action": "note_objection"} | chosen)

    assert post.issue(newsletter) == []
    assert suppression.is_suppressed(ADDRESS)
