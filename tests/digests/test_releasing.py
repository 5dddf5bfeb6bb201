from datetime import timedelta
from threading import Barrier, Thread

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.db import connection
from django.utils import timezone

from digests import compilation, release
from digests.models import DeliveryBatch, Digest, DigestTest, LeftOut
from newsroom.mail import outbox
from newsroom.mail.models import OutboxMail
from tests.makers import make_article, make_digest, make_sending_digest, make_subscription, make_subscriptions

pytestmark = pytest.mark.django_db

State = Digest.State
HOUR = timedelta(hours=1)


@pytest.fixture
def editor():
    return User.objects.create_user("editor", "Chefin@Redaktion.example", is_staff=True)


def state_of(digest):
    return Digest.objects.get(pk=digest.pk).state


def test_an_approved_digest_that_is_due_starts_at_once(editor):
    digest = make_digest()
    make_subscriptions(digest.newsletter, 3)

    assert release.approve(digest, now=timezone.now(), actor=editor)

    assert state_of(digest) == State.SENDING
    assert Digest.objects.get().expected_count == 3
    assert list(digest.changes.values_list("state", "actor")) == [
        (State.APPROVED, editor.pk),
        (State.SENDING, editor.pk),
    ]


def test_an_approved_digest_waits_for_its_time(editor):
    now = timezone.now()
    digest = make_digest(due_at=now + HOUR)

    release.approve(digest, now=now, actor=editor)
    release.start_due(now)
    assert state_of(digest) == State.APPROVED
    release.start_due(now + HOUR)

    assert state_of(digest) == State.SENDING


def test_a_digest_that_needs_approval_does_not_start_by_itself():
    digest = make_digest()
    digest.schedule.approval = "required"
    digest.schedule.save()

    release.start_due(timezone.now())

    assert state_of(digest) == State.COMPILED


def test_send_now_does_not_wait_for_the_time(editor):
    digest = make_digest(due_at=timezone.now() + HOUR)

    assert release.send_now(digest, now=timezone.now(), actor=editor)

    assert state_of(digest) == State.SENDING
    assert digest.changes.get().reason


@pytest.mark.parametrize(
    ("step", "possible"),
    [
        ("approve", {"compiled"}),
        ("send_now", {"compiled", "approved"}),
        ("pause", {"sending"}),
        ("resume", {"paused"}),
        ("cancel", {"planned", "compiled", "approved", "sending", "paused"}),
    ],
)
@pytest.mark.parametrize("state", State.values)
def test_a_step_is_taken_from_its_own_states_only(step, possible, state, editor):
    digest = make_digest(state=state)
    reason = {"reason": "Probe"} if step in {"pause", "cancel"} else {}

    taken = getattr(release, step)(digest, now=timezone.now(), actor=editor, **reason)

    assert taken == (state in possible)
    assert digest.changes.exists() == taken
    assert (state_of(digest) != state) == taken


def test_after_its_last_hour_a_digest_no_longer_starts(editor):
    digest = make_digest(not_after=timezone.now())

    assert not release.approve(digest, now=timezone.now(), actor=editor)
    assert not release.send_now(digest, now=timezone.now(), actor=editor)

    assert state_of(digest) == State.COMPILED


def test_a_digest_nobody_approved_is_skipped_and_its_articles_wait_again():
    now = timezone.now()
    article = make_article(first_seen_at=now - HOUR)
    digest = make_digest(articles=0, state=State.PLANNED)
    digest.schedule.approval = "required"
    digest.schedule.save()
    compilation.compile_digest(digest, now=now)

    release.lapse(digest.not_after)

    assert state_of(digest) == State.SKIPPED
    assert Digest.objects.get().state_reason
    assert list(compilation.waiting_articles(digest.schedule, now=now)) == [article]


def test_the_articles_of_a_cancelled_digest_wait_again(editor):
    now = timezone.now()
    first, second = make_article(first_seen_at=now - HOUR), make_article(first_seen_at=now - 2 * HOUR)
    digest = make_digest(articles=0, state=State.PLANNED)
    digest.schedule.maximum_articles = 1
    digest.schedule.save()
    compilation.compile_digest(digest, now=now)
    assert LeftOut.objects.count() == 1

    release.cancel(digest, now=now, actor=editor, reason="falsches Bild")

    assert set(compilation.waiting_articles(digest.schedule, now=now)) == {first, second}
    assert Digest.objects.get().state_reason == "falsches Bild"


def test_cancelled_before_anything_was_handed_over_the_articles_wait_again(editor):
    digest = make_sending_digest(readers=3)

    release.cancel(digest, now=timezone.now(), actor=editor, reason="zu früh")

    assert not digest.entries.filter(released_at=None).exists()
    assert set(digest.batches.values_list("state", flat=True)) == {DeliveryBatch.State.CANCELLED}


def test_cancelled_in_mid_sending_the_articles_stay_in_the_digest(editor):
    digest = make_sending_digest(readers=3)
    digest.batches.update(state=DeliveryBatch.State.SUBMITTING)

    release.cancel(digest, now=timezone.now(), actor=editor, reason="Fehler entdeckt")

    assert digest.entries.filter(released_at=None).exists()


def test_a_failed_freeze_leaves_the_digest_where_it_was(editor, monkeypatch):
    digest = make_digest()

    def fail(digest, *, now):
        raise OSError("gone")

    monkeypatch.setattr(release.audience, "freeze", fail)
    with pytest.raises(OSError, match="gone"):
        release.send_now(digest, now=timezone.now(), actor=editor)

    assert state_of(digest) == State.COMPILED
    assert not digest.changes.exists()


@pytest.mark.django_db(transaction=True)
def test_of_two_who_send_at_the_same_moment_one_starts(editor):
    digest = make_digest()
    make_subscription(digest.newsletter)
    barrier, results = Barrier(3), []

    def send():
        barrier.wait(10)
        results.append(release.send_now(Digest.objects.get(pk=digest.pk), now=timezone.now(), actor=editor))
        connection.close()

    threads = [Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(results) == [False, False, True]
    assert digest.batches.count() == 1


def test_a_test_mail_goes_to_the_account_that_asked_and_to_nobody_else(editor):
    digest = make_digest()
    make_subscriptions(digest.newsletter, 3)

    release.send_test(digest, user=editor, now=timezone.now())
    outbox.send_due(timezone.now())

    (message,) = mail.outbox
    assert message.recipients() == ["Chefin@redaktion.example"]
    assert message.subject.startswith("[TEST] ")
    assert state_of(digest) == State.COMPILED


def test_a_test_mail_is_marked_and_its_personal_links_are_dead(editor):
    digest = make_digest()

    release.send_test(digest, user=editor, now=timezone.now())
    outbox.send_due(timezone.now())

    (message,) = mail.outbox
    for part in (message.body, message.alternatives[0][0]):
        assert "TEST" in part
        assert "slot.invalid" not in part
        assert "/newsletter/abmelden/" not in part
    assert not {"List-Unsubscribe", "List-Id", "Precedence"} & set(message.extra_headers)


def test_an_account_without_address_gets_no_test_mail():
    digest = make_digest()

    assert release.send_test(digest, user=User.objects.create_user("ohne"), now=timezone.now()) is None
    assert not DigestTest.objects.exists()


def test_a_test_mail_for_an_account_closed_meanwhile_is_withheld(editor):
    release.send_test(make_digest(), user=editor, now=timezone.now())
    User.objects.update(is_active=False)

    outbox.send_due(timezone.now())

    assert mail.outbox == []
    assert OutboxMail.objects.get().state == OutboxMail.State.WITHHELD
