"""Service mails are sent once; a second time only where it is uncertain whether the first one left."""

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from anymail.exceptions import AnymailRequestsAPIError
from django.contrib.auth.models import Permission, User
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from newsroom.mail import outbox
from newsroom.mail.models import OutboxMail
from newsroom.mail.outbox import Prepared, Withheld
from newsroom.mail.transport import Outcome, Result
from newsroom.tasks import purge_all
from tests.newsroom.service_mails import make_service_mail
from tests.stand_ins import MailgunStandIn, SmtpStandIn

State = OutboxMail.State
KIND = "greeting"
NOW = timezone.now()


@pytest.fixture(autouse=True)
def _builders() -> Iterator[None]:
    before = dict(outbox._builders)
    outbox.register(KIND, lambda mail: Prepared(make_service_mail(f"{mail.reference}@leser.example")))
    yield
    outbox._builders.clear()
    outbox._builders.update(before)


def make_mail(**values: Any) -> OutboxMail:
    mail = outbox.enqueue(values.pop("kind", KIND), reference=uuid4(), now=NOW)
    OutboxMail.objects.filter(pk=mail.pk).update(**values)
    mail.refresh_from_db()
    return mail


def send(mail: OutboxMail, *, after: timedelta = timedelta()) -> OutboxMail:
    """Let a relay run at a time, and return the row as it is then."""
    outbox.send_due(NOW + after)
    mail.refresh_from_db()
    return mail


def fail_with(error: BaseException, settings: Any, *, leaves: bool = False) -> list[EmailMessage]:
    """Configure a backend that raises; return the list of what left all the same."""
    left: list[EmailMessage] = []

    class Backend(BaseEmailBackend):
        def send_messages(self, email_messages: Any) -> int:
            if leaves:
                left.extend(email_messages)
            raise error

    _use(Backend, settings)
    return left


def _use(backend: type[BaseEmailBackend], settings: Any) -> None:
    globals()["_Backend"] = backend
    settings.EMAIL_BACKEND = f"{__name__}._Backend"


# Noting a mail


@pytest.mark.django_db
def test_a_mail_is_noted_once_per_kind_and_cause() -> None:
    reference = uuid4()

    first = outbox.enqueue(KIND, reference=reference, now=NOW)
    second = outbox.enqueue(KIND, reference=reference, now=NOW + timedelta(hours=1))
    other = outbox.enqueue("another", reference=reference, now=NOW)

    assert first == second
    assert second.created_at == NOW
    assert other != first


@pytest.mark.django_db
def test_a_mail_whose_cause_is_rolled_back_was_never_noted() -> None:
    with transaction.atomic():
        outbox.enqueue(KIND, reference=uuid4(), now=NOW)
        transaction.set_rollback(True)

    assert not OutboxMail.objects.exists()


# Sending


@pytest.mark.django_db
def test_a_due_mail_is_sent_once(mailoutbox: list[EmailMessage]) -> None:
    mail = make_mail()

    assert outbox.send_due(NOW) == 1
    assert outbox.send_due(NOW + timedelta(days=1)) == 0

    mail.refresh_from_db()
    assert (mail.state, mail.reason, mail.attempts) == (State.SENT, "", 1)
    assert mail.sent_at is not None
    assert [message.to for message in mailoutbox] == [[f"{mail.reference}@leser.example"]]


@pytest.mark.django_db
def test_the_message_id_is_the_rows(mailoutbox: list[EmailMessage]) -> None:
    mail = send(make_mail())

    assert mailoutbox[0].extra_headers["Message-ID"] == f"<{mail.uuid}@wochenblitz.example>"


@pytest.mark.django_db
def test_a_mail_not_yet_due_waits(mailoutbox: list[EmailMessage]) -> None:
    mail = make_mail(next_attempt_at=NOW + timedelta(seconds=1))

    assert send(mail).state == State.PENDING
    assert send(mail, after=timedelta(seconds=2)).state == State.SENT


@pytest.mark.django_db
def test_the_cause_is_told_in_the_transaction_that_marks_the_mail_sent() -> None:
    told: list[Any] = []

    def on_sent(at: Any, result: Result) -> None:
        told.append((at, result.outcome, connection.in_atomic_block, OutboxMail.objects.get().state))

    outbox.register(KIND, lambda mail: Prepared(make_service_mail(), on_sent))
    mail = send(make_mail())

    assert told == [(mail.sent_at, Outcome.ACCEPTED, True, State.SENT)]


@pytest.mark.django_db(transaction=True)
def test_a_cause_that_cannot_note_it_does_not_send_the_mail_again(
    mailoutbox: list[EmailMessage], caplog: pytest.LogCaptureFixture
) -> None:
    def on_sent(at: Any, result: Result) -> None:
        raise ValueError("leserin@leser.example")

    outbox.register(KIND, lambda mail: Prepared(make_service_mail(), on_sent))
    mail = send(make_mail())
    send(mail, after=timedelta(days=1))

    assert mail.state == State.SENT
    assert "ValueError" in mail.reason
    assert len(mailoutbox) == 1
    assert "leserin@" not in caplog.text


@pytest.mark.django_db
def test_a_withheld_mail_is_not_sent(mailoutbox: list[EmailMessage]) -> None:
    outbox.register(KIND, lambda mail: Withheld("expired"))
    mail = send(make_mail())

    assert (mail.state, mail.reason) == (State.WITHHELD, "expired")
    assert mailoutbox == []


@pytest.mark.django_db
def test_a_kind_nobody_makes_fails() -> None:
    assert send(make_mail(kind="unheard of")).state == State.FAILED


@pytest.mark.django_db
def test_a_mail_that_cannot_be_made_does_not_keep_the_others_waiting(
    mailoutbox: list[EmailMessage], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(mail: OutboxMail) -> Prepared:
        raise KeyError(f"{mail.reference}@leser.example")

    outbox.register("broken", fail)
    broken, good = make_mail(kind="broken"), make_mail()

    outbox.send_due(NOW)

    broken.refresh_from_db()
    good.refresh_from_db()
    assert (broken.state, broken.attempts) == (State.PENDING, 1)
    assert broken.next_attempt_at > NOW
    assert good.state == State.SENT
    assert "KeyError" in caplog.text
    assert str(broken.reference) not in caplog.text


# Faults


@pytest.mark.django_db
def test_a_definite_fault_is_tried_again_with_growing_pauses(settings: Any) -> None:
    with SmtpStandIn() as server:
        server.configure(settings)
    mail = make_mail()

    pauses = []
    for _ in range(3):
        at = mail.next_attempt_at
        send(mail, after=at - NOW)
        pauses.append((mail.next_attempt_at - at).total_seconds())

    assert mail.state == State.PENDING
    assert mail.attempts == 3
    assert 12 <= pauses[0] <= 19
    assert 24 <= pauses[1] <= 37
    assert 48 <= pauses[2] <= 73


@pytest.mark.django_db
def test_a_recovered_provider_gets_the_mail_once(settings: Any) -> None:
    with MailgunStandIn() as mailgun:
        mailgun.configure(settings)
        mailgun.mode = "throttle"
        mail = send(make_mail())
        assert mail.state == State.PENDING
        assert mail.next_attempt_at >= NOW + timedelta(seconds=7)

        mailgun.mode = "ok"
        send(mail, after=timedelta(minutes=1))

    assert mail.state == State.SENT
    assert mail.provider_message_id.endswith("@mg.wochenblitz.example>")
    assert len(mailgun.delivered) == 1


@pytest.mark.django_db
def test_a_provider_that_cannot_be_reached_costs_one_try_for_all(settings: Any) -> None:
    with SmtpStandIn() as server:
        server.configure(settings)
    mails = [make_mail() for _ in range(5)]

    assert outbox.send_due(NOW) == 1

    assert sorted(OutboxMail.objects.values_list("attempts", flat=True)) == [0, 0, 0, 0, 1]
    assert not OutboxMail.objects.due(NOW + timedelta(seconds=10)).exists()
    assert OutboxMail.objects.due(NOW + timedelta(seconds=60)).count() == len(mails)


@pytest.mark.django_db
def test_a_refused_recipient_does_not_hold_up_the_others(settings: Any) -> None:
    with SmtpStandIn() as server:
        server.configure(settings)
        bad, slow, good = make_mail(), make_mail(), make_mail()
        server.refused = {
            f"{bad.reference}@leser.example": "550 5.1.1 no such user",
            f"{slow.reference}@leser.example": "450 4.2.0 greylisted",
        }
        outbox.send_due(NOW)

    for mail in (bad, slow, good):
        mail.refresh_from_db()
    assert (bad.state, slow.state, good.state) == (State.FAILED, State.PENDING, State.SENT)
    assert "550 5.1.1" in bad.reason
    assert "@" not in bad.reason


@pytest.mark.django_db
def test_after_about_a_day_a_mail_is_given_up(settings: Any) -> None:
    with SmtpStandIn() as server:
        server.configure(settings)
    mail = make_mail()

    while mail.state == State.PENDING:
        send(mail, after=mail.next_attempt_at - NOW)

    assert mail.state == State.FAILED
    assert mail.attempts == outbox.MAX_ATTEMPTS
    assert timedelta(hours=18) < mail.next_attempt_at - NOW < timedelta(hours=28)


# In doubt


@pytest.mark.django_db
def test_an_ambiguous_mail_gets_one_second_try_with_the_same_message_id(settings: Any) -> None:
    with MailgunStandIn() as mailgun:
        mailgun.configure(settings)
        mailgun.mode = "drop"
        mail = send(make_mail())
        assert (mail.state, mail.ambiguous_attempts) == (State.PENDING, 1)

        send(mail, after=timedelta(minutes=1))
        for hours in range(1, 48):
            send(mail, after=timedelta(hours=hours))

    assert mail.state == State.FAILED
    assert len(mailgun.delivered) == 2
    assert len({delivered.headers["Message-ID"] for delivered in mailgun.delivered}) == 1


@pytest.mark.django_db
def test_a_definite_fault_after_an_ambiguous_one_does_not_use_up_the_second_try(settings: Any) -> None:
    with MailgunStandIn() as mailgun:
        mailgun.configure(settings)
        mailgun.mode = "drop"
        mail = send(make_mail())
        mailgun.mode = "throttle"
        send(mail, after=timedelta(minutes=1))
        mailgun.mode = "ok"
        send(mail, after=timedelta(hours=2))

    assert mail.state == State.SENT
    assert len(mailgun.delivered) == 2


class Killed(BaseException):
    """As far as the process's own code can tell."""


@pytest.mark.django_db(transaction=True)
def test_a_relay_killed_during_the_call_leaves_one_mail_in_doubt(settings: Any, mailoutbox: list[EmailMessage]) -> None:
    sound = settings.EMAIL_BACKEND
    left = fail_with(Killed(), settings, leaves=True)
    mail = make_mail()

    with pytest.raises(Killed):
        outbox.send_due(NOW)
    mail.refresh_from_db()
    assert mail.state == State.SUBMITTING

    settings.EMAIL_BACKEND = sound
    assert send(mail, after=timedelta(seconds=30)).state == State.SUBMITTING  # its lease is not over
    send(mail, after=timedelta(minutes=2))
    assert mail.state == State.PENDING
    send(mail, after=timedelta(minutes=3))

    assert mail.state == State.SENT
    copies = [*left, *mailoutbox]
    assert len(copies) == 2
    assert len({copy.extra_headers["Message-ID"] for copy in copies}) == 1


@pytest.mark.django_db(transaction=True)
def test_a_relay_killed_twice_during_the_call_leaves_the_mail_to_staff(settings: Any) -> None:
    left = fail_with(Killed(), settings, leaves=True)
    mail = make_mail()

    for minutes in (0, 3):
        outbox._settle_lost(NOW + timedelta(minutes=minutes))
        with pytest.raises(Killed):
            outbox.send_due(NOW + timedelta(minutes=minutes + 1))
    send(mail, after=timedelta(hours=1))

    assert mail.state == State.FAILED
    assert "relay lost" in mail.reason
    assert len(left) == 2


@pytest.mark.django_db(transaction=True)
def test_a_relay_killed_before_the_call_costs_nothing_but_time(mailoutbox: list[EmailMessage]) -> None:
    def kill(mail: OutboxMail) -> Prepared:
        raise Killed

    outbox.register(KIND, kill)
    mail = make_mail()
    with pytest.raises(Killed):
        outbox.send_due(NOW)
    outbox.register(KIND, lambda mail: Prepared(make_service_mail()))

    assert send(mail, after=timedelta(seconds=30)).state == State.LEASED
    assert send(mail, after=timedelta(minutes=2)).state == State.SENT
    assert len(mailoutbox) == 1


@pytest.mark.django_db(transaction=True)
def test_a_mail_that_kills_every_relay_is_given_up(settings: Any) -> None:
    def kill(mail: OutboxMail) -> Prepared:
        raise Killed

    outbox.register(KIND, kill)
    mail = make_mail(attempts=outbox.MAX_ATTEMPTS - 1)
    with pytest.raises(Killed):
        outbox.send_due(NOW)

    assert send(mail, after=timedelta(minutes=2)).state == State.FAILED


@pytest.mark.django_db
def test_a_relay_that_lost_its_claim_sends_nothing(mailoutbox: list[EmailMessage]) -> None:
    def lose(mail: OutboxMail) -> Prepared:
        OutboxMail.objects.filter(pk=mail.pk).update(fence=mail.fence + 1)
        return Prepared(make_service_mail())

    outbox.register(KIND, lose)
    mail = send(make_mail())

    assert mail.state == State.LEASED  # by the other relay
    assert mailoutbox == []


@pytest.mark.django_db
def test_a_relay_whose_claim_was_taken_during_the_call_writes_nothing(settings: Any) -> None:
    class Slow(BaseEmailBackend):
        def send_messages(self, email_messages: Any) -> int:
            OutboxMail.objects.update(fence=99)
            return 1

    _use(Slow, settings)
    mail = send(make_mail())

    assert (mail.state, mail.fence, mail.sent_at) == (State.SUBMITTING, 99, None)


def _run_together(work: Callable[[], None], *, threads: int) -> None:
    start = threading.Barrier(threads)

    def run() -> None:
        try:
            start.wait()
            work()
        finally:
            connections.close_all()

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


@pytest.mark.django_db(transaction=True)
def test_many_relays_at_once_send_each_mail_once(settings: Any) -> None:
    outbox.register(
        KIND, lambda mail: Prepared(EmailMessage("Gruß", "Guten Tag", to=[f"{mail.reference}@leser.example"]))
    )
    with SmtpStandIn() as server:
        server.configure(settings)
        mails = [make_mail() for _ in range(25)]
        taken: list[int] = []
        _run_together(lambda: taken.append(outbox.send_due(NOW)), threads=4)

    arrived = sorted(mail.recipients[0] for mail in server.received)
    assert arrived == sorted(f"{mail.reference}@leser.example" for mail in mails)
    assert sum(taken) == len(mails)
    assert set(OutboxMail.objects.values_list("state", "attempts")) == {(State.SENT, 1)}


# The brake, retention, staff


@pytest.mark.django_db
def test_a_flood_is_held_and_told(
    settings: Any, mailoutbox: list[EmailMessage], caplog: pytest.LogCaptureFixture
) -> None:
    settings.CONFIRMATIONS_PER_HOUR = 3
    for _ in range(5):
        make_mail()

    with caplog.at_level(logging.ERROR):
        outbox.send_due(NOW)
        outbox.send_due(NOW + timedelta(minutes=1))

    assert len(mailoutbox) == 3
    assert "held" in caplog.text
    outbox.send_due(NOW + timedelta(minutes=62))
    assert len(mailoutbox) == 5


@pytest.mark.django_db
def test_rows_go_with_the_sign_ups_that_caused_them(settings: Any) -> None:
    old = NOW - settings.SIGN_UP_RETENTION - timedelta(seconds=1)
    for state in (State.SENT, State.FAILED, State.WITHHELD, State.PENDING):
        make_mail(state=state, created_at=old)
    make_mail(state=State.SUBMITTING, created_at=old)
    make_mail(state=State.SENT)

    assert purge_all(NOW)["service_mails"] == 4
    assert OutboxMail.objects.count() == 2


@pytest.mark.django_db
def test_the_command_sends_until_none_is_left(mailoutbox: list[EmailMessage], capsys: pytest.CaptureFixture) -> None:
    for _ in range(3):
        make_mail()
    make_mail(next_attempt_at=NOW + timedelta(hours=1))

    call_command("send_outbox")

    assert len(mailoutbox) == 3
    assert "3 service mails taken up, 1 waiting" in capsys.readouterr().out


def _staff_client(*permissions: str) -> Client:
    user = User.objects.create_user("redaktion", password="ein langes Passwort", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.django_db
def test_staff_see_mails_but_change_none() -> None:
    mail = make_mail(state=State.FAILED, reason="refused (SMTPRecipientsRefused 550 5.1.1)")
    client = _staff_client("view_outboxmail")

    page = client.get(reverse("admin:mail_outboxmail_changelist"))
    assert page.status_code == 200
    assert "SMTPRecipientsRefused 550 5.1.1" in page.content.decode()
    assert 'value="retry"' not in page.content.decode()
    assert client.get(reverse("admin:mail_outboxmail_change", args=[mail.pk])).status_code == 200
    assert client.get(reverse("admin:mail_outboxmail_add")).status_code == 403
    assert client.post(reverse("admin:mail_outboxmail_delete", args=[mail.pk])).status_code == 403


@pytest.mark.django_db
def test_staff_may_have_failed_mails_tried_again(mailoutbox: list[EmailMessage]) -> None:
    failed = make_mail(state=State.FAILED, attempts=32, ambiguous_attempts=2, reason="given up")
    sent = make_mail(state=State.SENT)
    client = _staff_client("view_outboxmail", "change_outboxmail")

    answer = client.post(
        reverse("admin:mail_outboxmail_changelist"),
        {"action": "retry", "_selected_action": [failed.pk, sent.pk]},
        follow=True,
    )

    assert answer.status_code == 200
    outbox.send_due(timezone.now())
    assert [message.to for message in mailoutbox] == [[f"{failed.reference}@leser.example"]]


# The decision


@pytest.mark.parametrize(
    ("outcome", "attempts", "ambiguous", "state"),
    [
        (Outcome.REFUSED, 1, 0, State.FAILED),
        (Outcome.NOT_SENT, 1, 0, State.PENDING),
        (Outcome.THROTTLED, 1, 1, State.PENDING),
        (Outcome.DENIED, 31, 0, State.PENDING),
        (Outcome.NOT_SENT, 32, 0, State.FAILED),
        (Outcome.THROTTLED, 32, 0, State.FAILED),
        (Outcome.AMBIGUOUS, 1, 0, State.PENDING),
        (Outcome.AMBIGUOUS, 2, 1, State.FAILED),
    ],
)
def test_what_an_outcome_leads_to(outcome: Outcome, attempts: int, ambiguous: int, state: str) -> None:
    change = outbox.decide(Result(outcome, "x"), attempts=attempts, ambiguous_attempts=ambiguous, now=NOW)

    assert change["state"] == state
    assert (state == State.FAILED) == ("next_attempt_at" not in change)


def test_an_error_of_the_provider_is_not_quoted(caplog: pytest.LogCaptureFixture, settings: Any, db: None) -> None:
    fail_with(AnymailRequestsAPIError("leserin@leser.example"), settings)
    mail = send(make_mail())

    assert "leserin@" not in caplog.text
    assert "leserin@" not in mail.reason
