"""The gate lets through what the provider takes: its pace, its number a day, nothing while it fails."""

import errno
import smtplib
from datetime import timedelta
from threading import Thread
from time import monotonic
from uuid import uuid4

import pytest
import requests
from anymail.exceptions import AnymailRequestsAPIError
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.urls import reverse
from django.utils import timezone

from digests import audit, carriers, claiming, delivery, providers, sweeping
from digests.admin import ProviderAdmin
from digests.models import DeliveryAttempt, DeliveryBatch, Digest, Provider
from newsroom.mail import alarms, gate, outbox
from newsroom.mail.models import OutboxMail
from newsroom.mail.outbox import Prepared
from newsroom.mail.transport import Outcome, Result
from tests.backends import ScriptedBackend, addresses
from tests.makers import make_sending_digest, standing
from tests.newsroom.service_mails import make_service_mail

pytestmark = pytest.mark.django_db

NOW = timezone.now()
SECOND = timedelta(seconds=1)
FAULT = Result(Outcome.NOT_SENT, "ConnectionRefusedError", is_general=True)
GOOD = Result(Outcome.ACCEPTED, "")


@pytest.fixture(autouse=True)
def _scripted(settings):
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    ScriptedBackend.reset()


def set_provider(**values):
    providers.current()
    Provider.objects.update(**values)
    return Provider.objects.get()


def refuse_all(message, call):
    raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")


def throttle(message, call):
    response = requests.Response()
    response.status_code, response.headers["Retry-After"] = 429, "20"
    raise AnymailRequestsAPIError(response=response)


def fail(times, *, now=NOW):
    for _ in range(times):
        providers.note(Provider.objects.get(), FAULT, now=now)
    return Provider.objects.get()


def end_pauses():
    Provider.objects.update(resume_at=timezone.now())
    DeliveryBatch.objects.filter(state="pending").update(next_attempt_at=timezone.now())


# The pace


def test_mail_goes_at_the_pace_staff_set_and_leaves_service_mails_a_tenth():
    set_provider(most_per_second=20)
    digest = make_sending_digest(readers=40)

    began = monotonic()
    delivery.deliver_due()
    took = monotonic() - began

    assert standing(digest) == {"expected": 40, "accepted": 40}
    assert took >= 30 / 18  # the last ten begin when those before them have had their time at 18 a second
    assert took <= 30 / 18 + 3


def test_workers_share_one_pace():
    provider = set_provider(most_per_second=10)

    waits = [providers.reserve(provider, 9, now=NOW) for _worker in range(4)]

    assert waits == [timedelta(), SECOND, 2 * SECOND, 3 * SECOND]


def test_a_slow_pace_is_kept_within_each_second_too():
    provider = set_provider(most_per_second=3)
    digest = make_sending_digest(readers=4)

    delivery.deliver_due()

    assert providers.group_size(provider, most=10) == 2
    assert standing(digest) == {"expected": 4, "accepted": 4}


def test_where_the_queue_is_long_the_batch_waits_and_not_the_worker():
    set_provider(most_per_second=1, next_slot_at=timezone.now() + timedelta(minutes=3))
    digest = make_sending_digest(readers=4)

    began = monotonic()
    assert delivery.deliver_due() == 0

    assert monotonic() - began < 60
    assert standing(digest) == {"expected": 4, "waiting": 4}


def test_a_clock_that_was_ahead_and_is_right_again_holds_nobody():
    make_sending_digest(readers=3)
    providers.current()
    ahead = timezone.now() + timedelta(days=2)
    Provider.objects.update(most_per_second=100, next_slot_at=ahead)
    DeliveryBatch.objects.update(hinted_at=ahead)

    assert sweeping.due_for_a_hint(timezone.now(), limit=10)
    delivery.deliver_due()

    assert len(addresses()) == 3


def test_who_is_killed_while_waiting_leaves_nobody_uncertain(monkeypatch):
    set_provider(most_per_second=5)
    digest = make_sending_digest(readers=20)

    class Killed(BaseException):
        pass

    def die(seconds):
        raise Killed

    monkeypatch.setattr(delivery, "sleep", die)
    with pytest.raises(Killed):
        delivery.deliver_due()
    monkeypatch.undo()
    DeliveryBatch.objects.update(lease_until=timezone.now() - SECOND)
    sweeping.sweep(timezone.now())

    assert standing(digest) == {"expected": 20, "accepted": 4, "waiting": 16}


def test_a_plea_for_patience_halves_the_pace_and_is_believed_for_how_long():
    ScriptedBackend.reset(throttle)
    set_provider(most_per_second=100)
    digest = make_sending_digest(readers=3)

    delivery.deliver_due()

    provider = Provider.objects.get()
    assert provider.rate == pytest.approx(45)
    assert 15 <= (provider.resume_at - timezone.now()).total_seconds() <= 20
    assert standing(digest) == {"expected": 3, "waiting": 3}
    assert digest.batches.get().attempts == 0


def test_side_by_side_workers_told_to_slow_down_are_told_once():
    provider = set_provider(rate=40)
    result = Result(Outcome.THROTTLED, "429", is_general=True)

    for millisecond in range(8):
        providers.note(provider, result, now=NOW + timedelta(milliseconds=millisecond))

    assert Provider.objects.get().rate == 20


def test_without_a_set_pace_the_measured_one_is_halved():
    provider = set_provider()

    providers.note(provider, Result(Outcome.THROTTLED, "429", is_general=True), now=NOW, speed=12.0)

    assert Provider.objects.get().rate == 6


def test_success_quickens_the_pace_again_and_in_the_end_forgets_the_plea():
    provider = set_provider(rate=10, throttled_at=NOW)
    for _ in range(5):
        providers.note(Provider.objects.get(), GOOD, now=NOW + SECOND)
    assert 12 <= Provider.objects.get().rate <= 13

    providers.note(Provider.objects.get(), GOOD, now=NOW + timedelta(hours=2))

    provider = Provider.objects.get()
    assert provider.rate is None and providers.reserve(provider, 1000, now=NOW) == timedelta()


# The day


def test_the_days_number_is_kept_and_the_rest_expires_visibly():
    set_provider(most_per_day=25)  # 22 for digests, in groups of ten
    digest = make_sending_digest(readers=40)

    for _ in range(3):
        delivery.deliver_due()
        end_pauses()

    assert standing(digest) == {"expected": 40, "accepted": 20, "waiting": 20}
    assert any("22" in alarm.text for alarm in alarms.current(timezone.now()))

    late = digest.not_after + SECOND
    sweeping.close_unsendable(late)

    assert standing(digest) == {"expected": 40, "accepted": 20, "expired": 20}
    assert any("20" in alarm.text for alarm in alarms.current(late))


def test_another_day_has_a_number_of_its_own():
    provider = set_provider(most_per_day=20)
    providers.reserve(provider, 18, now=NOW)
    provider.refresh_from_db()
    with pytest.raises(providers.NoRoom):
        providers.reserve(provider, 1, now=NOW)
    assert not providers.passes(provider, now=NOW)

    tomorrow = NOW + timedelta(days=1)

    assert providers.passes(provider, now=tomorrow)
    assert providers.reserve(provider, 18, now=tomorrow) == timedelta()


def test_a_new_sender_is_warmed_up_day_by_day(settings):
    settings.MAIL_WARM_UP = [200, 500, 1000]
    provider = set_provider(is_warming_up=True)
    providers.reserve(provider, 1, now=NOW)
    provider.refresh_from_db()

    numbers = [providers.most_of_day(provider, now=NOW + timedelta(days=day)) for day in range(5)]

    assert numbers == [200, 500, 1000, None, None]


# The breaker


def test_faults_in_a_row_close_the_gate_and_one_batch_tries_and_opens_it(settings):
    settings.DELIVERY_BATCH_SIZE = 5
    ScriptedBackend.reset(refuse_all)
    digest = make_sending_digest(readers=10)
    for _ in range(providers.FAULTS_THAT_CLOSE):
        delivery.deliver_due()
        end_pauses()
    assert Provider.objects.get().gate == Provider.Gate.CLOSED

    first, second = digest.batches.values_list("id", flat=True)
    turn = claiming.Turn(carriers.Lines(), begun_at=monotonic())
    trial = claiming.claim(first, turn)
    assert trial is not None and claiming.claim(second, turn) is None
    assert digest.batches.get(pk=second).attempts == 0

    ScriptedBackend.reset()
    progress = delivery.Progress()
    delivery._hand_over(trial, progress)
    delivery._settle(trial, progress)
    delivery.deliver_due()

    assert Provider.objects.get().gate == Provider.Gate.OPEN
    assert standing(digest) == {"expected": 10, "accepted": 10}
    assert not list(audit.broken_invariants(timezone.now()))


def test_a_trial_that_fails_closes_the_gate_for_longer():
    set_provider()
    provider = fail(providers.FAULTS_THAT_CLOSE)
    first = provider.resume_at - NOW
    assert providers.enter(provider, now=provider.resume_at)

    providers.note(provider, FAULT, now=provider.resume_at)

    again = Provider.objects.get()
    assert again.gate == Provider.Gate.CLOSED
    assert again.resume_at - provider.resume_at > first


def test_the_pause_never_grows_beyond_ten_minutes():
    set_provider()

    provider = fail(30)

    assert provider.resume_at == NOW + timedelta(minutes=10)


def test_a_worker_that_dies_while_trying_does_not_keep_the_gate_shut():
    set_provider()
    provider = fail(providers.FAULTS_THAT_CLOSE)
    assert providers.enter(provider, now=provider.resume_at)
    trying = Provider.objects.get()
    assert not providers.passes(trying, now=provider.resume_at + SECOND)

    later = provider.resume_at + timedelta(minutes=5)

    assert providers.passes(trying, now=later) and providers.enter(trying, now=later)


def test_an_answer_that_comes_late_does_not_open_a_closed_gate():
    before = set_provider()
    fail(providers.FAULTS_THAT_CLOSE)

    providers.note(before, GOOD, now=NOW)

    assert Provider.objects.get().gate == Provider.Gate.CLOSED


@pytest.mark.parametrize("code", [535, 530])
def test_a_refused_key_closes_the_gate_at_once_and_one_batch_tries_later(code):
    def deny(message, call):
        raise smtplib.SMTPAuthenticationError(code, b"no")

    ScriptedBackend.reset(deny)
    digest = make_sending_digest(readers=3)
    delivery.deliver_due()
    provider = Provider.objects.get()
    assert provider.gate == Provider.Gate.CLOSED and provider.reason
    assert 9 * 60 <= (provider.resume_at - timezone.now()).total_seconds() <= 10 * 60

    ScriptedBackend.reset()
    end_pauses()
    delivery.deliver_due()

    assert Provider.objects.get().gate == Provider.Gate.OPEN
    assert standing(digest) == {"expected": 3, "accepted": 3}


def test_staff_are_told_of_a_closed_gate_in_words_and_by_mail_when_it_lasts():
    set_provider()
    fail(providers.FAULTS_THAT_CLOSE)

    alarms.watch(NOW)
    assert not OutboxMail.objects.filter(kind="alarm").exists()
    alarms.watch(NOW + timedelta(minutes=6))

    assert OutboxMail.objects.filter(kind="alarm").count() == 1
    assert any("ConnectionRefusedError" in alarm.text for alarm in alarms.current(NOW))


def test_service_mails_pass_a_closed_gate():
    set_provider(gate=Provider.Gate.CLOSED)
    before = dict(outbox._builders)
    outbox.register("greeting", lambda mail: Prepared(make_service_mail()))
    outbox.enqueue("greeting", reference=uuid4(), now=NOW)

    outbox.send_due(timezone.now())
    outbox._builders.clear()
    outbox._builders.update(before)

    assert len(addresses()) == 1


def test_staff_set_pace_and_number_and_open_the_gate_in_the_admin(client):
    provider = set_provider(gate=Provider.Gate.CLOSED, reason="kaputt")
    user = User.objects.create_user("technik", password="ein-langes-wort", is_staff=True)
    client.force_login(user)
    page = reverse("admin:digests_provider_change", args=[provider.pk])
    values = {"most_per_second": "14.5", "most_per_day": "50000", "is_warming_up": "on"}
    assert client.post(page, values).status_code == 403
    user.user_permissions.add(
        *Permission.objects.filter(codename__in=["send_digest", "view_provider"], content_type__app_label="digests")
    )

    assert client.post(page, values).status_code == 302
    client.post(
        reverse("admin:digests_provider_changelist"), {"action": "let_mail_pass", "_selected_action": [provider.pk]}
    )

    provider.refresh_from_db()
    assert (provider.most_per_second, provider.most_per_day, provider.is_warming_up) == (14.5, 50000, True)
    assert provider.gate == Provider.Gate.OPEN
    assert client.post(page, {"most_per_second": "-1"}).status_code == 200  # shown again, with the fault at its field


def test_staff_who_set_a_pace_undo_nothing_that_workers_write_meanwhile(admin_client, monkeypatch):
    provider = set_provider()
    save_form = ProviderAdmin.save_form

    def save_later(self, request, form, change):
        Provider.objects.update(gate=Provider.Gate.CLOSED, count_of_day=700)
        return save_form(self, request, form, change)

    monkeypatch.setattr(ProviderAdmin, "save_form", save_later)
    admin_client.post(reverse("admin:digests_provider_change", args=[provider.pk]), {"most_per_second": "14.5"})

    provider.refresh_from_db()
    assert (provider.gate, provider.count_of_day, provider.most_per_second) == ("closed", 700, 14.5)


def test_why_all_mail_is_held_is_logged_once_and_not_at_each_claim(caplog, monkeypatch):
    monkeypatch.setattr(gate, "_obstacles", {"test": lambda: "Der Wald steht schwarz."})
    for _ in range(5):
        assert gate.is_closed()
    monkeypatch.setattr(gate, "_obstacles", {})
    for _ in range(5):
        assert not gate.is_closed()

    assert [record.levelname for record in caplog.records if record.name == gate.__name__] == ["ERROR", "WARNING"]


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_eight_workers_keep_one_pace_together():
    set_provider(most_per_second=200)
    digest = make_sending_digest(readers=0)
    provider = Provider.objects.get()
    waits = []

    def work():
        try:
            for _ in range(5):
                waits.append(providers.reserve(provider, 10, now=NOW))
        finally:
            connections.close_all()

    workers = [Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    expected = [timedelta(seconds=10 * number / 180) for number in range(40)]
    assert digest.pk and len(waits) == 40
    assert all(abs(wait - due) < SECOND / 1000 for wait, due in zip(sorted(waits), expected, strict=True))
    assert not DeliveryAttempt.objects.exists() and Digest.objects.exists()
