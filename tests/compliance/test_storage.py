from datetime import timedelta

import pytest
from django.utils import timezone

from digests.models import Delivery
from newsroom.tasks import purge_all
from subscriptions import suppression
from subscriptions.models import PrivacyRequest, SignUp, Subscription, Suppression
from tests.compliance.post import CONFIRM
from tests.makers import make_newsletter
from tests.subscriptions.reading import send_form

pytestmark = pytest.mark.django_db
ADDRESS = "leserin@leser.example"
MINUTE = timedelta(minutes=1)


def test_r37_everything_goes_when_its_period_ends_and_not_before(post, settings):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)
    post.issue(newsletter)
    send_form("vielleicht@leser.example", newsletter)
    post.rights_page(ADDRESS)
    suppression.note("weg@leser.example", Suppression.Reason.HARD_BOUNCE, timezone.now())
    suppression.note("nie@leser.example", Suppression.Reason.COMPLAINT, timezone.now())
    started = timezone.now()

    def rows(period: timedelta, model) -> tuple[int, int]:
        purge_all(started + period - timedelta(hours=1))
        before = model.objects.count()
        purge_all(started + period + timedelta(hours=30))
        return before, model.objects.count()

    assert rows(settings.SIGN_UP_RETENTION, SignUp)[1] == 0
    assert rows(settings.DELIVERY_RETENTION, Delivery) == (1, 0)
    assert rows(settings.BOUNCE_RETENTION, Suppression) == (2, 1)
    assert rows(settings.PRIVACY_REQUEST_RETENTION, PrivacyRequest) == (1, 0)
    assert Subscription.objects.active().count() == 1  # until withdrawn
    assert not any(purge_all(started + settings.PRIVACY_REQUEST_RETENTION + timedelta(hours=30)).values())


def test_r38_an_erased_address_stays_as_a_keyed_hash_until_its_owner_comes_back(post, settings):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)
    post.erase(ADDRESS)
    [entry] = Suppression.objects.all()
    settings.SUPPRESSION_KEY, key = "a-key-of-somebody-else-0123456789-0123456789", settings.SUPPRESSION_KEY
    assert not suppression.is_suppressed(ADDRESS) and ADDRESS not in str(vars(entry))
    settings.SUPPRESSION_KEY = key
    assert suppression.is_suppressed(ADDRESS)

    post.subscribe(ADDRESS, newsletter)

    assert not suppression.is_suppressed(ADDRESS)
    assert len(post.issue(newsletter)) == 1


def test_r38_a_complaint_is_not_undone_by_a_form(post):
    suppression.note(ADDRESS, Suppression.Reason.COMPLAINT, timezone.now())

    answer = send_form(ADDRESS, make_newsletter())

    assert answer.status_code == 303 and not [mail for mail in post.to(ADDRESS) if CONFIRM in mail.text]
    assert suppression.is_blocked(ADDRESS)
