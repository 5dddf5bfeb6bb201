"""Staff see a digest get on: how far, how fast, until when, to which domains, and what holds it up."""

import re
import smtplib
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from digests import delivery, outcomes, progress, providers
from digests.models import Delivery, DeliveryAttempt, DeliveryBatch, Digest, Provider
from newsroom.mail import gate
from tests.backends import ScriptedBackend
from tests.makers import make_newsletter, make_sending_digest, make_subscriber, make_subscription

pytestmark = pytest.mark.django_db
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _scripted(settings):
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    settings.DELIVERY_BATCH_SIZE = 10
    ScriptedBackend.reset()


@pytest.fixture
def now():
    return timezone.now().replace(second=30, microsecond=0)


def make_attempt(digest, batch_number, *, started_at, ended_at, acknowledged, done=True):
    batch = digest.batches.get(number=batch_number)
    if done:
        DeliveryBatch.objects.filter(pk=batch.pk).update(state="done" if ended_at else "submitting")
    return DeliveryAttempt.objects.create(
        batch=batch, fence=1, started_at=started_at, ended_at=ended_at, acknowledged=acknowledged
    )


def make_digest_under_way(now, **values):
    digest = make_sending_digest(**values)
    Digest.objects.filter(pk=digest.pk).update(audience_frozen_at=now - 10 * MINUTE)
    digest.refresh_from_db()
    return digest


def pace_of(digest, now):
    return progress.pace(digest, outcomes.counts(digest), now=now)


def test_the_pace_is_what_the_last_minute_brought_and_says_when_it_ends(now):
    digest = make_digest_under_way(now, readers=50)
    make_attempt(digest, 1, started_at=now - 5 * MINUTE, ended_at=now - 4 * MINUTE, acknowledged=10)
    make_attempt(digest, 2, started_at=now - 40 * SECOND, ended_at=now - 20 * SECOND, acknowledged=10)
    make_attempt(digest, 3, started_at=now - 10 * SECOND, ended_at=None, acknowledged=5)

    pace = pace_of(digest, now)

    assert pace.per_minute == 15
    assert pace.minutes_left == 2  # 30 readers are left
    assert pace.ends_at == now + 2 * MINUTE
    assert not pace.is_too_slow


def test_of_a_long_call_the_part_within_the_minute_counts(now):
    digest = make_digest_under_way(now, readers=20)
    make_attempt(digest, 1, started_at=now - 2 * MINUTE, ended_at=None, acknowledged=8)

    assert pace_of(digest, now).per_minute == 4


def test_a_pace_that_does_not_suffice_is_said(now):
    digest = make_digest_under_way(now, readers=40, not_after=now + 2 * MINUTE)
    make_attempt(digest, 1, started_at=now - 30 * SECOND, ended_at=now, acknowledged=10)

    assert pace_of(digest, now).is_too_slow


@pytest.mark.parametrize("state", ["paused", "finished", "cancelled"])
def test_a_digest_that_stands_has_no_end_in_sight(now, state):
    digest = make_digest_under_way(now, readers=20)
    make_attempt(digest, 1, started_at=now - 30 * SECOND, ended_at=now, acknowledged=10)
    digest.state = state

    assert pace_of(digest, now) == progress.Pace(0)


def test_before_the_first_mail_there_is_no_pace(now):
    digest = make_sending_digest(readers=20)

    assert pace_of(digest, now) == progress.Pace(0)
    assert progress.plot(digest, now=now).bars == []


def test_the_plot_counts_minute_by_minute_with_the_gaps(now):
    digest = make_digest_under_way(now, readers=50)
    first = now.replace(second=5)
    for number, (minute, count) in enumerate([(0, 10), (0, 10), (3, 10), (4, 6)], start=1):
        started = first - 5 * MINUTE + minute * MINUTE
        make_attempt(digest, number, started_at=started, ended_at=started + 20 * SECOND, acknowledged=count)

    plot = progress.plot(digest, now=now)

    assert [(bar.place, bar.accepted, bar.other) for bar in plot.bars] == [
        (0, 20, 0), (1, 0, 0), (2, 0, 0), (3, 10, 0), (4, 6, 0),
    ]  # fmt: skip
    assert plot.bars[0].at == first.replace(second=0) - 5 * MINUTE
    assert (plot.most, plot.bars[0].height, plot.bars[3].height) == (20, 100, 50)
    assert len(plot.shown) == 3


def test_other_ends_stand_apart_in_their_minute(now):
    digest = make_digest_under_way(now, readers=10)
    delivery.deliver_due()
    digest.refresh_from_db()
    Delivery.objects.filter(pk__in=digest.deliveries.values_list("pk", flat=True)[:3]).update(state="refused")

    [bar] = progress.plot(digest, now=timezone.now()).bars

    assert (bar.accepted, bar.other) == (7, 3)
    assert bar.height + bar.other_height == pytest.approx(100)


@pytest.mark.parametrize(("hours", "step"), [(1, 1), (2, 2), (6, 10), (23, 30)])
def test_a_long_sending_is_shown_in_sixty_bars_at_most(now, hours, step):
    digest = make_digest_under_way(now, readers=20)
    begin = now - timedelta(hours=hours) + MINUTE
    make_attempt(digest, 1, started_at=begin, ended_at=begin, acknowledged=10)
    make_attempt(digest, 2, started_at=now, ended_at=now, acknowledged=10)

    plot = progress.plot(digest, now=now)

    assert plot.minutes == step and len(plot.bars) <= 60
    assert sum(bar.accepted for bar in plot.bars) == 20


def make_digest_to(**domains):
    newsletter = make_newsletter()
    for domain, count in domains.items():
        for number in range(count):
            reader = make_subscriber(f"leser{number}@{domain.replace('_', '.')}")
            make_subscription(newsletter, reader)
    return make_sending_digest(readers=0, newsletter=newsletter)


def domains_of(digest):
    digest.refresh_from_db()
    found = progress.domains(digest, outcomes.counts(digest), now=timezone.now())
    return [(line.name, line.accepted, line.uncertain, line.other) for line in found.lines]


def test_the_domains_stand_in_order_and_small_ones_are_nobodys_business():
    digest = make_digest_to(gross_example=8, mittel_example=5, familie_example=4)

    delivery.deliver_due()

    assert domains_of(digest) == [("gross.example", 8, 0, 0), ("mittel.example", 5, 0, 0), ("", 4, 0, 0)]


def test_no_more_than_ten_domains_are_named():
    digest = make_digest_to(**{f"d{number:02}_example": 5 for number in range(12)})

    delivery.deliver_due()

    found = domains_of(digest)
    assert [name for name, *_counts in found] == [*(f"d{number:02}.example" for number in range(10)), ""]
    assert found[-1] == ("", 10, 0, 0)


def test_every_domain_has_its_own_outcomes():
    def script(message, call):
        if message.to[0].endswith("@streng.example"):
            raise smtplib.SMTPRecipientsRefused({message.to[0]: (550, b"no")})

    ScriptedBackend.reset(script)
    digest = make_digest_to(streng_example=6, mild_example=7)
    delivery.deliver_due()
    Delivery.objects.filter(
        pk=digest.deliveries.filter(subscriber__address="leser0@mild.example").values("pk")[:1]
    ).update(state="uncertain")

    assert domains_of(digest) == [("mild.example", 6, 1, 0), ("streng.example", 0, 0, 6), ("", 0, 0, 0)]


def test_an_erased_reader_has_no_domain():
    digest = make_digest_to(gross_example=6, klein_example=1)
    delivery.deliver_due()
    digest.deliveries.filter(subscriber__address="leser0@gross.example").update(subscriber=None)

    assert domains_of(digest) == [("gross.example", 5, 0, 0), ("", 2, 0, 0)]


def test_the_domains_are_counted_anew_only_after_a_while():
    digest = make_digest_to(gross_example=6)
    delivery.deliver(digest.batches.get().pk)
    Digest.objects.update(state="sending")
    domains_of(digest)

    with CaptureQueriesContext(
        connection,
    ) as queries:
        progress.domains(digest, {"expected": 6}, now=timezone.now())

    assert len(queries) == 0


def phase_of(digest):
    return progress.phase(digest, outcomes.counts(digest), now=timezone.now())


def test_what_holds_the_sending_up_is_said_in_words(monkeypatch):
    digest = make_sending_digest(readers=10)
    waiting = phase_of(digest)
    Provider.objects.filter(pk=providers.current().pk).update(gate="closed", reason="Schlüssel abgelehnt.")
    assert phase_of(digest) == "Schlüssel abgelehnt."
    Provider.objects.update(gate="open", reason="", resume_at=timezone.now() + 5 * MINUTE)
    paused = phase_of(digest)
    Provider.objects.update(resume_at=None)
    DeliveryBatch.objects.update(next_attempt_at=timezone.now() + 5 * MINUTE)
    later = phase_of(digest)
    DeliveryBatch.objects.update(state="submitting")
    going = phase_of(digest)
    monkeypatch.setitem(gate._obstacles, "test", lambda: "Erst die Sperrliste.")
    assert phase_of(digest) == "Erst die Sperrliste."

    assert len({waiting, paused, later, going}) == 4 and all((waiting, paused, later, going))


def test_when_only_uncertain_ones_are_left_that_is_said():
    digest = make_sending_digest(readers=3)
    delivery.deliver_due()
    Digest.objects.update(state="sending")
    digest.deliveries.update(state="uncertain")
    digest.refresh_from_db()

    assert phase_of(digest) and phase_of(digest) != progress.phase(
        digest, outcomes.counts(digest) | {"uncertain": 0}, now=timezone.now()
    )


def page(client, digest, name="progress"):
    return client.get(reverse(f"admin:digests_digest_{name}", args=[digest.pk]))


def test_the_fragment_shows_pace_plot_and_domains_and_no_address(admin_client):
    digest = make_digest_to(gross_example=12, klein_example=5)
    delivery.deliver(digest.batches.first().pk)

    shown = page(admin_client, digest)

    assert "gross.example" in shown.text and "@gross.example" not in shown.text
    assert "<svg" in shown.text and re.search(r'<rect class="plot-good" x="0\.1" y="0\.0"', shown.text)
    assert '<progress class="desk-bar" value="10" max="17"' in shown.text
    assert "style=" not in shown.text and "<script" not in shown.text
    assert "no-store" in shown["Cache-Control"]
    assert 'data-said="' in shown.text


def test_watching_costs_the_same_however_many_readers_there_are(admin_client):
    def count_queries(readers):
        digest = make_sending_digest(readers=readers)
        delivery.deliver_due()
        Digest.objects.filter(pk=digest.pk).update(state="sending")
        with CaptureQueriesContext(connection) as queries:
            assert page(admin_client, digest).status_code == 200
        return len(queries)

    count_queries(1)
    assert count_queries(45) == count_queries(5)


@pytest.mark.parametrize(
    ("state", "is_live"),
    [
        ("sending", True),
        ("paused", True),
        ("approved", True),
        ("finished", False),
        ("cancelled", False),
        ("compiled", False),
    ],
)
def test_the_page_is_live_while_something_may_happen(admin_client, state, is_live):
    digest = make_sending_digest(readers=2)
    Digest.objects.update(state=state, finished_at=timezone.now())

    shown = page(admin_client, digest, "change").text

    assert ("digests/live.js" in shown) == ("data-live=" in shown) == ('http-equiv="refresh"' in shown) == is_live


def test_only_who_may_look_at_digests_sees_it(client):
    digest = make_sending_digest(readers=2)
    user = User.objects.create_user("redaktion", is_staff=True)
    client.force_login(user)

    assert page(client, digest).status_code == 403
    user.user_permissions.set(Permission.objects.filter(codename="view_digest"))
    assert page(client, digest).status_code == 200
    assert "/act/" not in page(client, digest).text


def test_each_step_about_readers_says_how_many_it_concerns_and_is_offered_only_then(admin_client):
    digest = make_sending_digest(readers=4)
    delivery.deliver_due()
    Digest.objects.update(state="sending")
    names = ["resend-uncertain", "give-up-uncertain", "wait-for-uncertain", "retry-refused", "retry-failed"]
    urls = {name: reverse("admin:digests_digest_act", args=[digest.pk, name]) for name in names}
    assert not any(url in page(admin_client, digest).text for url in urls.values())

    first, *others = digest.deliveries.values_list("pk", flat=True)
    Delivery.objects.filter(pk=first).update(state="refused")
    Delivery.objects.filter(pk__in=others).update(state="uncertain")

    shown = page(admin_client, digest).text
    assert [name for name in names if urls[name] in shown] == names[:4]
    assert "<b>3</b>" in admin_client.get(urls["wait-for-uncertain"]).text
    assert "<b>1</b>" in admin_client.get(urls["retry-refused"]).text
    Digest.objects.update(not_after=timezone.now())
    shown = page(admin_client, digest).text
    assert [name for name in names if urls[name] in shown] == names[1:3]


def test_a_decision_pressed_twice_is_taken_once(admin_client):
    digest = make_sending_digest(readers=4)
    delivery.deliver_due()
    Digest.objects.update(state="sending")
    digest.deliveries.update(state="uncertain")
    url = reverse("admin:digests_digest_act", args=[digest.pk, "resend-uncertain"])

    for _press in range(2):
        answer = admin_client.post(url, {"reason": "Nachgefragt"}, follow=True)
        assert answer.status_code == 200

    assert digest.changes.filter(reason__contains="Nachgefragt").count() == 1
    assert digest.batches.filter(is_second_try=True).count() == 1
